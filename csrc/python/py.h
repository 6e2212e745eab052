/* Purpose: Python.h, with lengths in "#" formats as Py_ssize_t. */
#ifndef RT_PYTHON_PY_H
#define RT_PYTHON_PY_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#endif
