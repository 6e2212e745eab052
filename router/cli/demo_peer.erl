%% The other side of the demo in Erlang; the same as demo_peer.py.
-module(demo_peer).
-export([start/1]).

start(Boss) ->
    register(demo, self()),
    {demo, Boss} ! {ready, self()},
    monitor_node(Boss, true),
    loop().

loop() ->
    receive
        {count, From, Total} ->
            From ! count(Total),
            loop();
        {flood, To, Total, Payload} ->
            flood(To, 0, Total, Payload),
            loop();
        {echo, From, Value} ->
            From ! {echoed, Value},
            loop();
        stop ->
            halt(0);
        {nodedown, _} ->
            halt(0)
    end.

count(Total) ->
    receive
        {m, 0, _} -> count(1, Total, erlang:monotonic_time())
    after 20000 -> {counted, {wrong, 0, nothing}, 0}
    end.

count(Total, Total, Start) ->
    Time = erlang:monotonic_time() - Start,
    {counted, ok, erlang:convert_time_unit(Time, native, microsecond)};
count(Seen, Total, Start) ->
    receive
        {m, Seen, _} -> count(Seen + 1, Total, Start);
        {m, Other, _} -> {counted, {wrong, Seen, Other}, 0}
    after 20000 -> {counted, {wrong, Seen, nothing}, 0}
    end.

flood(_, Total, Total, _) ->
    ok;
flood(To, I, Total, Payload) ->
    To ! {m, I, Payload},
    flood(To, I + 1, Total, Payload).
