%% The other side of the demo in Erlang. demo_exchange.py says what it serves.
-module(demo_peer).
-export([start/1]).

-define(PATIENCE, 20000).

start(Boss) ->
    register(demo, self()),
    erlang:monitor(process, {demo, Boss}),
    Version = "Erlang/OTP " ++ erlang:system_info(otp_release),
    {demo, Boss} ! {ready, atom_to_binary(node()), self(), list_to_binary(Version)},
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
        {terms, From} ->
            Kinds = kinds(From),
            From ! {compared, length(Kinds), lists:flatmap(fun(T) -> compare(From, T) end, Kinds)},
            loop();
        stop ->
            halt(0);
        {'DOWN', _, process, _, _} ->
            %% The node that started this one is gone.
            halt(0)
    end.

count(Total) ->
    receive
        {m, 0, _} -> count(1, Total, erlang:monotonic_time())
    after ?PATIENCE -> {counted, {wrong, 0, nothing}, 0, 0}
    end.

count(Total, Total, Start) ->
    Time = erlang:monotonic_time() - Start,
    {counted, ok, Total - 1, erlang:convert_time_unit(Time, native, microsecond)};
count(Seen, Total, Start) ->
    receive
        {m, Seen, _} -> count(Seen + 1, Total, Start);
        {m, Other, _} -> {counted, {wrong, Seen, Other}, 0, 0}
    after ?PATIENCE -> {counted, {wrong, Seen, nothing}, 0, 0}
    end.

flood(_, Total, Total, _) ->
    ok;
flood(To, I, Total, Payload) ->
    To ! {m, I, Payload},
    flood(To, I + 1, Total, Payload).

compare(To, Term) ->
    To ! {echo, self(), Term},
    receive
        {echoed, Term} -> [];
        {echoed, Other} -> [text("~tP came back as ~tP", [Term, 12, Other, 12])]
    after ?PATIENCE -> [text("~tP did not come back", [Term, 12])]
    end.

text(Format, Values) ->
    unicode:characters_to_binary(io_lib:format(Format, Values)).

%% What only Erlang can make is among them: funs, ports.
kinds(Peer) ->
    N = length(nodes(hidden)),
    [ok, 'an atom', '', true, false, nil, undefined,
     0, -1, 255, 1 bsl 31, -(1 bsl 63), 1 bsl 64, 1 bsl 2000, 1.5, 5.0e-324,
     <<>>, <<"bytes">>, binary:copy(<<"x">>, 200000), <<5:3>>,
     [], "text", [1, 1000, <<"mixed">>, [[]]], [1 | 2], lists:seq(1, 1000),
     {}, {1, {2, {3}}}, list_to_tuple(lists:seq(1, 300)),
     #{}, #{a => 1, <<"b">> => [#{}]}, #{1 => int, 1.0 => float},
     #{[1] => #{{} => []}}, maps:from_list([{I, I * I} || I <- lists:seq(1, 100)]),
     self(), Peer, make_ref(), hd(erlang:ports()),
     fun lists:map/2, fun(X) -> X + N end].
