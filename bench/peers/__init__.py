"""The programs that take part: each is a process of its own that obeys commands.

A command is one line of words on standard input; an answer is one JSON object
in one line on standard output. The end of the input ends the process.

    receive FORM COUNT SIZE SENDERS BOXES   {"armed": true}, later {"first", "last", "counted"}
    connect DESTINATION...                  {"connected": true}
    send FORM COUNT SIZE SENDER DEST...     {"sent": COUNT}
    serve COUNT                             {"armed": true}, later {"served": COUNT}
    ping FORM COUNT SIZE DESTINATION        {"p50", "p99", "p999", "mean"}, of 3 s at most
    bulk SIZE DESTINATION, or bulk off      {"bulk": ...}
    cycle COUNT DESTINATION                 {"cycles": COUNT, "ns"}: connect and disconnect
    hold COUNT DESTINATION                  {"held": COUNT}: connections that stay
    flood EACH SIZE DESTINATION             {"sent": ...}: on every held connection
    volley EACH SIZE DESTINATION            {"ns": ...}: round trips on all of them at once; router

A command that fails answers {"error": ...}.

`receive`: each of BOXES destinations gets COUNT messages, shared by SENDERS.
SENDER counts from 0; its messages carry the ids SENDER << 26, and up by one: all of them
are small integers, so that a message of the fourth sender is like one of the first.
first and last are nanoseconds of one clock that all processes share; counted
is the messages after those that arrived with the first.
"""
