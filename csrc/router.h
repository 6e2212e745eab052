/* Purpose: the one header that the extension module declares. For Cython alone;
 * C files include what they use. */
#ifndef RT_ROUTER_H
#define RT_ROUTER_H

#include "python/apart.h"
#include "python/codec.h"
#include "python/module.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/limits.h"
#include "dist/control.h"
#include "dist/epmd.h"
#include "net/socket.h"
#include "node/engine.h"
#include "node/node.h"
#include "route/multicast.h"
#include "route/outbound.h"
#include "route/signal.h"
#include "term/ident.h"
#include "term/write.h"

#endif
