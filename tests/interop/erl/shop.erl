%% A gen_server to be called: answers, falls silent, answers late, crashes.
-module(shop).
-behaviour(gen_server).
-export([start/1, init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export([raise/2, double/1, wait/1]).

start(Name) ->
    {ok, Pid} = gen_server:start({local, Name}, ?MODULE, [], []),
    Pid.

init([]) -> {ok, #{casts => [], held => [], info => []}}.

handle_call({echo, Term}, _, State) -> {reply, Term, State};
handle_call(hold, From, State = #{held := Held}) -> {noreply, State#{held := [From | Held]}};
handle_call({release, Answer}, _, State = #{held := Held}) ->
    [gen_server:reply(From, Answer) || From <- Held],
    {reply, length(Held), State#{held := []}};
handle_call({crash, Reason}, _, State) -> {stop, Reason, State};
handle_call(casts, _, State = #{casts := Casts}) -> {reply, lists:reverse(Casts), State};
handle_call(who, {Pid, _}, State) -> {reply, Pid, State}.

handle_cast({crash, Reason}, State) -> {stop, Reason, State};
handle_cast(Term, State = #{casts := Casts}) -> {noreply, State#{casts := [Term | Casts]}}.

handle_info(_, State) -> {noreply, State}.

%% For remote calls.
raise(Class, Reason) -> erlang:raise(Class, Reason, []).
double(X) -> 2 * X.
wait(Box) -> Box ! self(), receive never -> ok end.
