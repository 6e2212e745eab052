%% What two nodes say to each other while make_dist.py records them. Every step
%% waits for its effect, so that a recording is whole when talk/2 returns.
-module(dist_talk).
-export([talk/2, host/0]).

%% Runs on the first node; Peer is the second one, Rows how long the longest
%% message is.
talk(Peer, Rows) ->
    process_flag(trap_exit, true),
    pong = net_adm:ping(Peer),
    Host = spawn(Peer, ?MODULE, host, []),
    monitor(process, Host),
    sends(Peer, Host),
    aliases(Host),
    monitors(Peer, Host),
    links(Host),
    exits(Host),
    traced(Peer, Host),
    requests(Peer),
    priorities(Host),
    big(Host, Rows),
    Host ! {self(), stop},
    receive {'DOWN', _, process, Host, Why} -> stopped = Why end,
    ok.

%% Runs on the second node.
host() ->
    register(dist_host, self()),
    process_flag(trap_exit, true),
    hosted().

hosted() ->
    receive
        {From, stop} -> unlink(From), exit(stopped);
        {From, child} -> From ! {self(), spawn(fun() -> obey() end)}, hosted();
        {From, watch} -> From ! {self(), monitor(process, From)}, hosted();
        {From, {release, Ref}} -> From ! {self(), demonitor(Ref)}, hosted();
        {From, {prio, Kind}} -> From ! {self(), prio(Kind)}, hosted();
        {From, {hash, Term}} -> From ! {self(), erlang:phash2(Term)}, hosted();
        {From, Term} -> From ! {self(), Term}, hosted();
        _ -> hosted()
    end.

%% A process that ends, links and unlinks as it is told.
obey() ->
    receive
        {From, {exit, Reason}} -> From ! {self(), leaving}, exit(Reason);
        {From, {unlink, Pid}} -> unlink(Pid), From ! {self(), unlinked}, obey();
        {From, Term} -> From ! {self(), Term}, obey()
    end.

ask(Pid, Term) ->
    Pid ! {self(), Term},
    receive {Pid, Answer} -> Answer end.

ask_name(Name, Peer, Pid, Term) ->
    {Name, Peer} ! {self(), Term},
    receive {Pid, Answer} -> Answer end.

sends(Peer, Host) ->
    Terms = [[], 1, -1, 1 bsl 70, 1.5, <<"bytes">>, <<5:3>>, "text", [a, [b | c]],
             #{key => value, 1 => {}}, self(), make_ref(), fun lists:map/2, 'åäö',
             list_to_atom(lists:duplicate(255, $a)), list_to_atom(lists:duplicate(255, 16#3b1)),
             [list_to_atom("atom_" ++ integer_to_list(I)) || I <- lists:seq(1, 260)]],
    [T = ask(Host, T) || T <- Terms, _ <- [1, 2]],
    [T = ask_name(dist_host, Peer, Host, T) || T <- Terms].

aliases(Host) ->
    Alias = alias(),
    Host ! {Alias, by_alias},
    receive {Host, by_alias} -> ok end,
    unalias(Alias),
    Ref = monitor(process, Host, [{alias, reply_demonitor}]),
    Host ! {Ref, by_monitor},
    receive {Host, by_monitor} -> ok end.

monitors(Peer, Host) ->
    Child = ask(Host, child),
    Kept = monitor(process, Child),
    Dropped = monitor(process, Child),
    Named = monitor(process, {dist_host, Peer}),
    Missing = monitor(process, {nobody, Peer}),
    receive {'DOWN', Missing, process, {nobody, Peer}, noproc} -> ok end,
    demonitor(Dropped), demonitor(Named),
    leaving = ask(Child, {exit, {reason, [1, 2, 3], <<"payload">>}}),
    receive {'DOWN', Kept, process, Child, {reason, _, _}} -> ok end,
    {Brief, Done} = spawn_monitor(fun() ->
        true = ask(Host, {release, ask(Host, watch)}),
        true = is_reference(ask(Host, watch)),
        exit({brief, watched})
    end),
    receive {'DOWN', Done, process, Brief, {brief, watched}} -> ok end.

links(Host) ->
    A = ask(Host, child),
    link(A), again = ask(A, again),
    unlink(A), again = ask(A, again),
    link(A), unlinked = ask(A, {unlink, self()}),
    link(A), again = ask(A, again),
    leaving = ask(A, {exit, {linked, died}}),
    receive {'EXIT', A, {linked, died}} -> ok end,
    B = ask(Host, child),
    M = monitor(process, B),
    {Brief, Gone} = spawn_monitor(fun() -> link(B), x = ask(B, x), exit({ours, died}) end),
    receive {'DOWN', Gone, process, Brief, _} -> ok end,
    receive {'DOWN', M, process, B, {ours, died}} -> ok end.

exits(Host) ->
    A = ask(Host, child),
    M = monitor(process, A),
    group_leader(group_leader(), A),
    exit(A, {killed, [by, us]}),
    receive {'DOWN', M, process, A, {killed, _}} -> ok end,
    exit(Host, [kept, trapped]),
    still = ask(Host, still).

%% The same once more with a trace token on every signal.
traced(Peer, Host) ->
    seq_trace:set_token(label, 17),
    seq_trace:set_token(send, true),
    t = ask(Host, t),
    t = ask_name(dist_host, Peer, Host, t),
    Alias = alias(),
    Host ! {Alias, t},
    receive {Host, t} -> ok end,
    A = ask(Host, child),
    link(A), t = ask(A, t),
    exit(A, traced),
    receive {'EXIT', A, traced} -> ok end,
    B = ask(Host, child),
    link(B), leaving = ask(B, {exit, traced_too}),
    receive {'EXIT', B, traced_too} -> ok end,
    Id = spawn_request(Peer, erlang, self, [], [{reply, yes}]),
    receive {spawn_reply, Id, ok, _} -> ok end,
    seq_trace:set_token([]).

requests(Peer) ->
    {P, M} = spawn_monitor(Peer, erlang, exit, [{result, 42}]),
    receive {'DOWN', M, process, P, {result, 42}} -> ok end,
    Linked = spawn_opt(Peer, erlang, exit, [done], [link, {priority, high}]),
    receive {'EXIT', Linked, done} -> ok end,
    Id = spawn_request(Peer, erlang, exit, [no], [{nonsense, 1}]),
    receive {spawn_reply, Id, error, badopt} -> ok end,
    [2, 4] = erpc:call(Peer, lists, map, [fun(X) -> 2 * X end, [1, 2]]),
    {badrpc, _} = rpc:call(Peer, erlang, exit, [why]).

%% Priority signals, where the nodes know them.
priorities(Host) ->
    case ask(Host, {prio, open}) of
        none -> ok;
        Alias ->
            apply(erlang, send, [Alias, {self(), first}, [priority]]),
            receive {Host, first} -> ok end,
            apply(erlang, exit, [Alias, {prio, exit}, [priority]]),
            second = ask(Host, second)
    end.

prio(open) ->
    try apply(erlang, alias, [[priority]]) catch error:_ -> none end.

%% Messages that are cut when they are long, with atoms of the cache all over
%% them. Only their hash comes back.
big(Host, Rows) ->
    Long = [{row, I, 'åäö', [even, odd, self()], <<I:64>>} || I <- lists:seq(1, Rows)],
    Hash = erlang:phash2(Long),
    Hash = ask(Host, {hash, Long}).
