%% Erlang's side of the conversations in the interop tests: senders, receivers and judges. What a
%% process receives is checked here, with =:=.
-module(talk).
-export([echo/1, bounce/3, sender/1, await_node/2, gone/2, watch/2, watched/1, connect_at/2]).
-export([pump/3, pump_many/4, counter/2, send_blobs/2, judge_blobs/2, judge_many/3, verdict/1]).
-export([blob/2, named/2, every_kind/0, same/2]).
-export([die_linked/2, sleeper/0, hold/2]).

-define(PATIENCE, 30000).

%% Registers Name and sends {self(), Term} back for each {From, Term}, until stop.
echo(Name) ->
    Caller = self(),
    Pid = spawn(fun() ->
        register(Name, self()),
        Caller ! {ready, self()},
        echo_loop()
    end),
    receive {ready, Pid} -> Pid end.

echo_loop() ->
    receive
        stop -> ok;
        {From, Term} -> From ! {self(), Term}, echo_loop()
    end.

%% Sends each term to To as {self(), I, Term}; the {I, Term} that come back must be the same.
%% Gives those that were not.
bounce(To, Terms, From) ->
    [To ! {self(), I, T} || {I, T} <- lists:zip(lists:seq(From, From + length(Terms) - 1), Terms)],
    bounced(Terms, From).

bounced([], _) -> [];
bounced([T | Rest], I) ->
    receive
        {I, Back} when Back =:= T -> bounced(Rest, I + 1);
        {I, Back} -> [{I, T, Back} | bounced(Rest, I + 1)]
    after ?PATIENCE -> [{I, T, nothing_came}]
    end.

%% A process that sends to others what it is told to.
sender(Caller) ->
    spawn(fun() -> erlang:monitor(process, Caller), sender_loop() end).

sender_loop() ->
    receive
        {send, To, Term} -> To ! Term, sender_loop();
        {'DOWN', _, _, _, _} -> ok
    end.

%% Waits until Node is connected (true) or not (false).
await_node(Node, Up) ->
    ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
    case lists:member(Node, nodes(connected)) of
        Up -> ok;
        _ when Up -> receive {nodeup, Node, _} -> ok after ?PATIENCE -> timeout end;
        _ -> receive {nodedown, Node, _} -> ok after ?PATIENCE -> timeout end
    end.

gone(Node, Timeout) ->
    erlang:monitor_node(Node, true),
    receive {nodedown, Node} -> ok after Timeout -> timeout end.

%% The same in two steps: whoever watches does so from here on, and says afterwards how it went.
watch(Node, Timeout) ->
    Caller = self(),
    Pid = spawn(fun() ->
        erlang:monitor_node(Node, true),
        Caller ! {watching, self()},
        Gone = receive {nodedown, Node} -> ok after Timeout -> timeout end,
        receive {asked, From} -> From ! {self(), Gone} after Timeout -> ok end
    end),
    receive {watching, Pid} -> Pid end.

watched(Pid) ->
    Ref = monitor(process, Pid),
    Pid ! {asked, self()},
    receive {Pid, Gone} -> Gone; {'DOWN', Ref, _, _, Why} -> {nobody, Why} end.

%% Connects at a moment (microseconds of the system's clock), to the microsecond.
connect_at(Node, Moment) ->
    spin(Moment),
    net_kernel:connect_node(Node).

spin(Moment) ->
    case erlang:system_time(microsecond) < Moment of
        true -> spin(Moment);
        false -> ok
    end.

%% {seq, I} for I = 1..N.
pump(To, N, Extra) -> pump(To, 1, N, Extra).

pump(_, I, N, _) when I > N -> ok;
pump(To, I, N, Extra) -> To ! {seq, I, Extra}, pump(To, I + 1, N, Extra).

%% Several processes, each sending Count blobs of Size to one of Tos: {Who, I, Size, Blob}.
pump_many(Tos, Senders, Count, Size) ->
    Caller = self(),
    Pids = [spawn_link(fun() ->
        To = lists:nth(1 + W rem length(Tos), Tos),
        receive go -> ok end,
        [To ! {W, I, Size, blob(W * 1000 + I, Size)} || I <- lists:seq(1, Count)],
        Caller ! {done, self()}
    end) || W <- lists:seq(1, Senders)],
    [P ! go || P <- Pids],
    [receive {done, P} -> ok end || P <- Pids],
    ok.

%% A process, registered as Name, that expects {seq, I, _} for I = 1..N in order.
counter(Name, N) -> served(Name, fun() -> count_from(1, N, ?PATIENCE) end).

count_from(I, N, _) when I > N -> {ok, N};
count_from(I, N, Patience) ->
    receive
        {seq, I, _} -> count_from(I + 1, N, Patience);
        {seq, Other, _} -> {expected, I, got, Other}
    after Patience -> {expected, I, got, nothing}
    end.

%% Bytes that tell which blob they are and where each stands; talk.py makes the same.
blob(Seed, Size) ->
    Unit = << <<(Seed + I * 7919):32>> || I <- lists:seq(1, 251) >>,
    binary:part(binary:copy(Unit, Size div byte_size(Unit) + 1), 0, Size).

check_blob({Seed, Size, Blob}) -> Blob =:= blob(Seed, Size).

%% Sends {Seed, Size, Blob} of each size; the seed is the size.
send_blobs(To, Sizes) ->
    [To ! {Size, Size, blob(Size, Size)} || Size <- Sizes],
    ok.

%% A registered process that checks Count blobs and answers {verdict, From}.
judge_blobs(Name, Count) ->
    served(Name, fun() -> blobs(Count, []) end).

blobs(0, Wrong) -> {wrong, Wrong};
blobs(Count, Wrong) ->
    receive
        {Seed, Size, Blob} ->
            case check_blob({Seed, Size, Blob}) of
                true -> blobs(Count - 1, Wrong);
                false -> blobs(Count - 1, [{Seed, Size} | Wrong])
            end
    after ?PATIENCE -> {missing, Count, wrong, Wrong}
    end.

%% Blobs {Who, I, Size, Blob} of several senders: each sender's come in order, and whole.
judge_many(Name, Senders, Count) ->
    served(Name, fun() -> many(Senders * Count, #{}) end).

many(0, Last) -> {ok, lists:usort(maps:values(Last))};
many(Left, Last) ->
    receive
        {Who, I, Size, Blob} ->
            case {maps:get(Who, Last, 0) + 1, blob(Who * 1000 + I, Size)} of
                {I, Blob} -> many(Left - 1, Last#{Who => I});
                {I, _} -> {damaged, Who, I};
                {Expected, _} -> {order, Who, Expected, I}
            end
    after ?PATIENCE -> {missing, Left}
    end.

%% Runs a judge in a process registered as Name, until somebody asks for its verdict.
served(Name, Judge) ->
    Caller = self(),
    Pid = spawn(fun() ->
        register(Name, self()),
        Caller ! {ready, self()},
        Verdict = Judge(),
        receive {verdict, From} -> From ! {self(), Verdict} end
    end),
    receive {ready, Pid} -> Pid end.

verdict(Pid) ->
    Ref = monitor(process, Pid),
    Pid ! {verdict, self()},
    receive
        {Pid, Verdict} -> demonitor(Ref, [flush]), Verdict;
        {'DOWN', Ref, _, _, Reason} -> {died, Reason}
    end.

%% N processes registered as Prefix1..PrefixN; each waits for {I, Ref} and says so.
named(Prefix, N) ->
    Caller = self(),
    [spawn(fun() ->
        register(list_to_atom(Prefix ++ integer_to_list(I)), self()),
        Caller ! {ready, I},
        receive {I, From} -> From ! {got, I} end
    end) || I <- lists:seq(1, N)],
    [receive {ready, I} -> ok end || I <- lists:seq(1, N)],
    ok.

%% Whether Term is what the expression in Text stands for.
same(Term, Text) ->
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Text) ++ " ."),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Expressions, []),
    Value =:= Term.

%% One and more of every kind of term.
every_kind() ->
    Port = hd(erlang:ports()),
    X = {captured, [1, 2]},
    Y = 2.5,
    Big = binary:copy(<<"0123456789">>, 7000),
    <<Bits:13/bitstring, _/bitstring>> = <<255, 85, 1>>,
    <<_:3, Inner:37/bitstring, _/bitstring>> = Big,
    Ints = [0, 1, -1, 255, 256, 1 bsl 27, 1 bsl 31, -(1 bsl 31), -(1 bsl 31) - 1, 1 bsl 32,
            1 bsl 59, (1 bsl 59) - 1, -(1 bsl 59), -(1 bsl 60), 1 bsl 63, 1 bsl 64, -(1 bsl 64),
            1 bsl 2039, 1 bsl 2040, -(1 bsl 2048), (1 bsl 20000) + 7],
    Floats = [0.0, -0.0, 1.5, -1.0e300, 5.0e-324, 1.7976931348623157e308, 3.141592653589793],
    Atoms = ['', ok, true, false, nil, undefined, 'with space', 'Upper', '\x{e9}t\x{e9}',
             '\x{65e5}\x{672c}', '\x{1f600}', list_to_atom(lists:duplicate(255, $a)),
             list_to_atom(lists:duplicate(255, 16#1f600))],
    Binaries = [<<>>, <<0>>, <<"abc">>, <<"\303\251">>, <<255, 254>>, Big, Bits, Inner, <<1:1>>,
                <<5:7>>],
    Lists = [[], [[]], [1, 2, 3], "charlist", [1000], [a | b], [1, 2 | 3], [[1 | 2] | {3}],
             lists:seq(1, 300), lists:duplicate(65536, 1), lists:duplicate(65535, 255)],
    Tuples = [{}, {1}, {{}}, list_to_tuple(lists:seq(1, 255)), list_to_tuple(lists:seq(1, 256)),
              {ok, [{deep, {er, [#{k => [v]}]}}]}],
    Maps = [#{}, #{a => 1}, #{1 => one, 1.0 => float}, #{0.0 => a}, #{true => 1, 1 => true},
            #{[] => nil, {} => [], #{} => #{x => y}}, #{[1, [2]] => <<"list key">>},
            maps:from_list([{I, I * I} || I <- lists:seq(1, 100)]),
            #{nested => #{a => #{b => #{c => [1, #{}]}}}}, #{<<"b">> => 1, "b" => 2, b => 3},
            #{0 => a, 0.0 => b}],
    Ids = [self(), make_ref(), alias(), Port, erlang:group_leader(), spawn(fun() -> ok end),
           monitor(process, self())],
    Funs = [fun() -> X end, fun(Z) -> {X, Y, Z} end, fun lists:map/2, fun ?MODULE:echo/1,
            fun local/1],
    [Ints, Floats, Atoms, Binaries, Lists, Tuples, Maps, Ids, Funs |
     Ints ++ Floats ++ Atoms ++ Binaries ++ Lists ++ Tuples ++ Maps ++ Ids ++ Funs].

local(A) -> A.

%% Links to every pid and, when told, dies of Reason.
die_linked(Pids, Caller) ->
    spawn(fun() ->
        [link(P) || P <- Pids],
        Caller ! {linked, self()},
        receive {die, Reason} -> exit(Reason) end
    end).

sleeper() -> spawn(fun() -> receive {die, Reason} -> exit(Reason) end end).

%% A registered process that lives until it is told a reason.
hold(Name, Caller) ->
    Pid = spawn(fun() ->
        register(Name, self()),
        Caller ! {held, self()},
        receive {die, Reason} -> exit(Reason) end
    end),
    receive {held, Pid} -> Pid end.
