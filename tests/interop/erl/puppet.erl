%% Puppets: processes that do what they are told, one thing at a time, and keep what they are
%% sent. A play is a list of steps for puppets on two nodes; what they were sent in each step, who
%% lives and who is tied to whom afterwards is its trace. The node under test may be one of Erlang
%% or one of Python (tests/interop/puppets.py is that node's side).
%%
%% d is the node that this runs on, s the other. A puppet's name is an atom.
-module(puppet).
-export([puppeteer/0, stage/1, play/1, clear/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export([returns/1, exits/1, waits/0]).

-define(PATIENCE, 20000).
-define(ROUNDS, 4).
-define(SCOPE, puppets).

%% The process that makes the puppets of its node, and knows when they have had what was sent.

puppeteer() ->
    case whereis(puppeteer) of
        undefined ->
            Caller = self(),
            Pid = spawn(fun() ->
                register(puppeteer, self()),
                {ok, _} = pg:start(?SCOPE),
                Caller ! {ready, self()},
                master([])
            end),
            receive {ready, Pid} -> ok end;
        _ ->
            ok
    end.

master(Puppets) ->
    receive
        {new, From, Ref, Name} ->
            Pid = new(Name),
            From ! {done, Ref, Pid},
            master([Pid | Puppets]);
        {settle, From, Ref} ->
            Alive = [P || P <- Puppets, asked(P, sync) =/= gone],
            sys:get_state(?SCOPE), % it has heard of those who have ended
            From ! {done, Ref, Alive},
            master(Alive);
        {clear, From, Ref} ->
            [begin exit(P, kill), asked(P, sync) end || P <- Puppets],
            sys:get_state(?SCOPE),
            From ! {done, Ref, ok},
            master([])
    end.

new({server, Name}) ->
    {ok, Pid} = gen_server:start({local, Name}, ?MODULE, [], []),
    Pid;
new(Name) ->
    Caller = self(),
    Pid = spawn(fun() ->
        Name =:= none orelse register(Name, self()),
        Caller ! {ready, self()},
        puppet([])
    end),
    receive {ready, Pid} -> Pid end.

%% What a process of this node answers; gone when it does not live.
asked(Pid, What) ->
    Ref = monitor(process, Pid),
    Pid ! {What, self(), Ref},
    receive
        {done, Ref, Value} -> demonitor(Ref, [flush]), Value;
        {'DOWN', Ref, _, _, _} -> gone
    after ?PATIENCE -> timeout
    end.

%% A puppet.

puppet(Log) ->
    receive
        {sync, From, Ref} -> From ! {done, Ref, ok}, puppet(Log);
        {log, From, Ref} -> From ! {done, Ref, lists:reverse(Log)}, puppet([]);
        {do, From, Ref, What} -> From ! {done, Ref, catch do(What)}, puppet(Log);
        {stop, Reason} -> exit(Reason);
        {leave_and_stop, Group, Reason} -> pg:leave(?SCOPE, Group, self()), exit(Reason);
        {burst, To, Count, Reason} -> burst(To, 1, Count), exit(Reason);
        Message -> puppet([Message | Log])
    end.

do({trap, On}) -> process_flag(trap_exit, On), ok;
do({link, Pid}) -> link(Pid), ok;
do({unlink, Pid}) -> unlink(Pid), ok;
do({monitor, What}) -> monitor(process, What);
do({demonitor, Ref}) -> demonitor(Ref, [info]);
do({exit, Pid, Reason}) -> exit(Pid, Reason), ok;
do({send, To, Term}) -> To ! Term, ok;
do({burst, To, Count}) -> burst(To, 1, Count), ok;
do(alias) -> alias();
do(alias_once) -> alias([reply]);
do({unalias, Ref}) -> unalias(Ref);
do({spawn, Node, Function, Args, Options}) ->
    spawn_request(Node, ?MODULE, Function, Args, Options);
do({join, Group}) -> pg:join(?SCOPE, Group, self());
do({leave, Group}) -> pg:leave(?SCOPE, Group, self());
do({members, Group}) ->
    {members, pg:get_members(?SCOPE, Group), pg:get_local_members(?SCOPE, Group)};
do({watch, Group}) -> element(1, pg:monitor(?SCOPE, Group));
do({unwatch, Ref}) -> pg:demonitor(?SCOPE, Ref);
%% As the scope of this node would say it.
do({sync, Node, Groups}) ->
    {?SCOPE, Node} ! {'$gen_cast', {sync, whereis(?SCOPE), Groups}}, ok;
do({discover, Node, Count}) ->
    [{?SCOPE, Node} ! {discover, whereis(?SCOPE)} || _ <- lists:seq(1, Count)], ok;
do({call, To, Request, Timeout}) ->
    try {ok, gen_server:call(To, Request, Timeout)}
    catch exit:{{Reason, [_ | _]}, {gen_server, call, _}} -> {failed, Reason};
          exit:{Reason, {gen_server, call, _}} -> {failed, Reason}
    end;
do({rpc, Node, Function, Args, Timeout}) ->
    try {ok, erpc:call(Node, ?MODULE, Function, Args, Timeout)}
    catch exit:{exception, Reason} -> {exit, Reason};
          error:{exception, Reason, [Where | _]} -> {error, Reason, Where};
          error:{erpc, Reason} -> {erpc, Reason}
    end.

%% What puppets have run on the other node.

returns(Value) -> Value.
exits(Reason) -> exit(Reason).
waits() -> receive after infinity -> ok end.

burst(_, I, Count) when I > Count -> ok;
burst(To, I, Count) -> To ! {burst, I}, burst(To, I + 1, Count).

%% A server: state, answers now or later, ends in several ways.

init([]) -> {ok, {0, none}}.

handle_call({add, N}, _, {Sum, From}) -> {reply, Sum + N, {Sum + N, From}};
handle_call(later, From, {Sum, _}) -> {noreply, {Sum, From}};
handle_call({stop, Reason, Reply}, _, State) -> {stop, Reason, Reply, State};
handle_call({stop, Reason}, _, State) -> {stop, Reason, State}.

handle_cast({answer, _}, {Sum, none}) -> {noreply, {Sum, none}};
handle_cast({answer, Reply}, {Sum, From}) -> gen_server:reply(From, Reply), {noreply, {Sum, none}};
handle_cast({stop, Reason}, State) -> {stop, Reason, State}.

handle_info({sync, From, Ref}, State) -> From ! {done, Ref, ok}, {noreply, State};
handle_info({log, From, Ref}, State) -> From ! {done, Ref, []}, {noreply, State};
handle_info(_, State) -> {noreply, State}.

%% The stage: who is who. It lives through all acts of a play; between them the test may cut the
%% connection.

stage(Other) ->
    case whereis(stage) of
        undefined -> ok;
        Old ->
            R = monitor(process, Old),
            exit(Old, kill),
            receive {'DOWN', R, _, _, _} -> ok end
    end,
    Caller = self(),
    Pid = spawn(fun() ->
        register(stage, self()),
        ok = clear(Other),
        Caller ! {ready, self()},
        acts(#{other => Other, pids => #{}, refs => #{}, names => #{}, children => #{},
               functions => #{}, alive => [], step => 0})
    end),
    receive {ready, Pid} -> ok after ?PATIENCE -> timeout end.

%% The puppets of both nodes end; those of the other first, so that their groups are known here.
clear(Other) ->
    lists:foreach(fun(Where) -> ok = ask(Where, clear) end, [{puppeteer, Other}, puppeteer]).

acts(State) ->
    receive
        {play, From, Steps} ->
            {Trace, Then} = lists:mapfoldl(fun step/2, State, Steps),
            From ! {played, Trace},
            acts(Then)
    end.

play(Steps) ->
    Ref = monitor(process, stage),
    stage ! {play, self(), Steps},
    receive
        {played, Trace} -> demonitor(Ref, [flush]), Trace;
        {'DOWN', Ref, _, _, Reason} -> error(Reason)
    after 2 * ?PATIENCE -> error(timeout)
    end.

ask(Where, What) ->
    Ref = make_ref(),
    Where ! {What, self(), Ref},
    await(Ref).

await(Ref) -> receive {done, Ref, Value} -> Value after ?PATIENCE -> timeout end.

step(Step, #{step := N} = State) ->
    {Result, Acted} = act(Step, State#{step := N + 1}),
    {Logs, #{alive := Alive, children := Children} = Now} = heard(settle(Acted, ?ROUNDS), []),
    Ties = [{name(P, Now), ties(P, Now)}
            || P <- Alive ++ maps:keys(Children), node(P) =:= node(), is_process_alive(P)],
    Living = lists:sort([name(P, Now) || P <- Alive]),
    Said = lists:sort([{name(P, Now), in_runs(known(Log, Now))} || {P, Log} <- Logs, Log =/= []]),
    {{N, known(Result, Now), Said, Living, lists:sort(Ties)}, Now}.

%% What everybody who lives was sent. Children that end do it in a moment of their own, which is
%% waited for.
heard(#{alive := Alive, children := Before} = State, Logs) ->
    Now = [{P, proplists:get_value(P, Logs, []) ++ ask(P, log)} || P <- Alive],
    #{children := Children} = Met = lists:foldl(fun meet/2, State, [Log || {_, Log} <- Now]),
    case [P || {P, F} <- maps:to_list(maps:without(maps:keys(Before), Children)), F =/= waits] of
        [] ->
            {Now, Met};
        Ending ->
            [receive {'DOWN', R, _, _, _} -> ok after ?PATIENCE -> timeout end
             || R <- [monitor(process, P) || P <- Ending]],
            heard(settle(Met, ?ROUNDS), Now)
    end.

%% Those whom puppets had made on the other node are called by the label of the request.
meet([{spawn_reply, Ref, ok, Pid} | Log],
     #{pids := Pids, names := Names, children := Children, functions := Functions} = State)
  when not is_map_key(Pid, Children) ->
    Label = maps:get(Ref, Names),
    meet(Log, State#{pids := Pids#{{child, Label} => Pid}, names := Names#{Pid => {child, Label}},
                     children := Children#{Pid => maps:get(Label, Functions)}});
meet([_ | Log], State) -> meet(Log, State);
meet(_, State) -> State.

act({wait}, State) ->
    {ok, State};
act({new, Who, Where, Name}, #{pids := Pids, names := Names} = State) ->
    Ref = make_ref(),
    at(Where, State) ! {new, self(), Ref, Name},
    Pid = await(Ref),
    {ok, State#{pids := Pids#{Who => Pid}, names := Names#{Pid => {Who, maps:size(Names)}}}};
act({tell, Who, What}, State) ->
    when_alive(Who, State, fun(Pid) -> Pid ! resolve(What, State), {ok, State} end);
act({do, Who, What}, State) ->
    act({do, Who, What, none}, State);
act({do, Who, {spawn, _, Function, _, _} = What, Label}, #{functions := Functions} = State)
  when not is_map_key(Label, Functions) ->
    act({do, Who, What, Label}, State#{functions := Functions#{Label => Function}});
act({do, Who, What, Label}, #{refs := Refs, names := Names} = State) ->
    when_alive(Who, State, fun(Pid) ->
        Ref = make_ref(),
        Pid ! {do, self(), Ref, resolve(What, State)},
        case await(Ref) of
            Made when is_reference(Made), Label =/= none ->
                {made, State#{refs := Refs#{Label => Made}, names := Names#{Made => Label}}};
            Value ->
                {Value, State}
        end
    end).

when_alive(Who, #{pids := Pids, alive := Alive} = State, Act) ->
    case lists:member(maps:get(Who, Pids, none), Alive) of
        true ->
            try Act(maps:get(Who, Pids)) catch throw:unknown -> {unknown, State} end;
        false ->
            {dead, State}
    end.

at(d, _) -> puppeteer;
at(s, #{other := Other}) -> {puppeteer, Other}.

resolve({pid, Who}, #{pids := Pids}) -> found(Who, Pids);
resolve({ref, Label}, #{refs := Refs}) -> found(Label, Refs);
resolve({node, d}, _) -> node();
resolve({node, s}, #{other := Other}) -> Other;
resolve({named, Name, d}, _) -> {Name, node()};
resolve({named, Name, s}, #{other := Other}) -> {Name, Other};
resolve(T, State) when is_tuple(T) -> list_to_tuple(resolve(tuple_to_list(T), State));
resolve([H | T], State) -> [resolve(H, State) | resolve(T, State)];
resolve(T, _) -> T.

found(Key, Map) ->
    case Map of
        #{Key := Value} -> Value;
        _ -> throw(unknown)
    end.

%% All that was under way has arrived, and all that followed from it: those who end do it in a
%% moment of their own, so the question is asked again.
settle(State, 0) -> State;
settle(#{other := Other} = State, Rounds) ->
    Here = ask(puppeteer, settle),
    There = ask({puppeteer, Other}, settle),
    settle(State#{alive := Here ++ There}, Rounds - 1).

%% The end of a process has no order among those who are told of it, and groups none among each
%% other; the changes of one group have.
in_runs(Log) when is_list(Log) ->
    {Signals, Rest} = lists:splitwith(fun is_end/1, Log),
    lists:sort(fun(A, B) -> place(A) =< place(B) end, Signals) ++ case Rest of
        [] -> [];
        [Message | More] -> [Message | in_runs(More)]
    end;
in_runs(Other) -> Other.

place({Ref, Change, Group, [_ | _]}) when Change =:= join; Change =:= leave -> {Ref, Group};
place(Signal) -> Signal.

is_end({'EXIT', _, _}) -> true;
is_end({'DOWN', _, _, _, _}) -> true;
is_end({_, Change, _, [_ | _]}) when Change =:= join; Change =:= leave -> true;
is_end(_) -> false.

ties(Pid, #{names := Names} = State) ->
    Info = case process_info(Pid, [links, monitors, monitored_by]) of
        undefined -> []; % a child that has just ended
        Found -> Found
    end,
    [{K, lists:sort([known(P, State) || P <- untagged(V), tied(P, Names)])} || {K, V} <- Info].

untagged(List) -> [case T of {process, P} -> P; P -> P end || T <- List].

tied({_, _}, _) -> true;
tied(P, Names) -> is_map_key(P, Names).

name(Pid, #{names := Names}) -> maps:get(Pid, Names).

known(T, #{names := Names}) when is_map_key(T, Names) -> maps:get(T, Names);
known(T, _) when is_pid(T) -> unknown_pid;
known(T, _) when is_reference(T) -> unknown_ref;
known(T, #{other := T}) -> s;
known(T, _) when T =:= node() -> d;
known({members, All, Own}, State) ->
    {members, lists:sort(known(All, State)), lists:sort(known(Own, State))};
known({Ref, Change, Group, Pids}, State) when Change =:= join; Change =:= leave ->
    {known(Ref, State), Change, Group, lists:sort(known(Pids, State))};
known(T, State) when is_tuple(T) -> list_to_tuple(known(tuple_to_list(T), State));
known([H | T], State) -> [known(H, State) | known(T, State)];
known(T, _) -> T.
