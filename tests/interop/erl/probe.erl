%% The tests' hand inside a node: evaluates what arrives on a control connection and answers.
%%
%% Request:  Id:32, Size:32, Bindings:Size/binary (a term, [{Name, Value}], or nothing), Source.
%% Answer:   Id:32, Kind:8, Rest. Kind 1: the value as a term. Kind 0: what went wrong, as text.
%%
%% Each request runs in a process of its own, so a slow one holds up nobody. When the connection
%% closes the node ends: a node never outlives the tests that started it.
-module(probe).
-export([start/1]).

start(Socket) ->
    Pid = spawn(fun() -> receive go -> loop(Socket, #{}) end end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    ok.

loop(Socket, Running) ->
    inet:setopts(Socket, [{active, once}]),
    receive
        {tcp, Socket, <<Id:32, Size:32, Bindings:Size/binary, Source/binary>>} ->
            {Pid, _} = spawn_monitor(fun() -> answer(Socket, Id, Bindings, Source) end),
            loop(Socket, Running#{Pid => Id});
        {'DOWN', _, process, Pid, normal} ->
            loop(Socket, maps:remove(Pid, Running));
        {'DOWN', _, process, Pid, Reason} ->
            {Id, Rest} = maps:take(Pid, Running),
            gen_tcp:send(Socket, [<<Id:32, 0>>, text("the process ended: ~0p", [Reason])]),
            loop(Socket, Rest);
        {Closed, Socket} when Closed =:= tcp_closed ->
            halt(0, [{flush, false}]);
        _ ->
            loop(Socket, Running)
    end.

answer(Socket, Id, Bindings, Source) ->
    Answer =
        try
            [<<Id:32, 1>>, term_to_binary(evaluate(Bindings, Source))]
        catch
            Class:Reason:Stack ->
                [<<Id:32, 0>>, text("~0p: ~0p~nin ~0p", [Class, Reason, Stack])]
        end,
    ok = gen_tcp:send(Socket, Answer).

evaluate(Bindings, Source) ->
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Source)),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Expressions, bindings(Bindings)),
    Value.

bindings(<<>>) ->
    erl_eval:new_bindings();
bindings(Encoded) ->
    Add = fun({Name, Value}, All) -> erl_eval:add_binding(binary_to_atom(Name), Value, All) end,
    lists:foldl(Add, erl_eval:new_bindings(), binary_to_term(Encoded)).

text(Format, Arguments) ->
    unicode:characters_to_binary(io_lib:format(Format, Arguments)).
