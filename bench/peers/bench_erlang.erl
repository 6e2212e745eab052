%% Erlang's own term_to_binary and binary_to_term, and its process groups. Packets with a 4-byte length come on standard
%% input and are answered on standard output:
%%   {load, Name, Binary}   -> true: the term is kept, and comes back from its own bytes the same
%%   {encode, Name, N}      -> bytes written: so many times
%%   {decode, Name, N}      -> how many terms were read
%%   {join, N}, {leave, N}  -> N: one process into as many groups, and out of them
%%   {hold, Groups, Each, N} -> members that were held: so many times, all join, then all end
-module(bench_erlang).
-export([main/0, keep/1]).

-define(SCOPE, bench).

main() ->
    {ok, _} = pg:start(?SCOPE),
    Port = open_port({fd, 0, 1}, [binary, {packet, 4}, eof]),
    loop(Port, #{}).

loop(Port, Terms) ->
    receive
        {Port, {data, Data}} ->
            {Answer, Kept} = answer(binary_to_term(Data), Terms),
            port_command(Port, term_to_binary(Answer)),
            loop(Port, Kept);
        {Port, eof} ->
            halt(0)
    end.

answer({load, Name, Binary}, Terms) ->
    Term = binary_to_term(Binary),
    Own = term_to_binary(Term),
    {binary_to_term(Own) =:= Term, Terms#{Name => {Term, Own}}};
answer({encode, Name, N}, Terms) ->
    #{Name := {Term, _}} = Terms,
    {encode(Term, N, 0), Terms};
answer({decode, Name, N}, Terms) ->
    #{Name := {_, Own}} = Terms,
    {decode(Own, N, 0), Terms};
answer({join, N}, Terms) ->
    [ok = pg:join(?SCOPE, {group, I}, self()) || I <- lists:seq(1, N)],
    {N, Terms};
answer({leave, N}, Terms) ->
    [ok = pg:leave(?SCOPE, {group, I}, self()) || I <- lists:seq(1, N)],
    {N, Terms};
answer({hold, Groups, Each, N}, Terms) ->
    {lists:sum([hold(Groups, Each) || _ <- lists:seq(1, N)]), Terms}.

%% Each of the members is in every group.
hold(Groups, Each) ->
    Members = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, Each)],
    [ok = pg:join(?SCOPE, {group, I}, M) || M <- Members, I <- lists:seq(1, Groups)],
    Held = lists:sum([length(pg:get_members(?SCOPE, G)) || G <- pg:which_groups(?SCOPE)]),
    [M ! stop || M <- Members],
    gone(),
    Held.

gone() ->
    case pg:which_groups(?SCOPE) of
        [] -> ok;
        _ -> sys:get_state(?SCOPE), gone()
    end.

encode(_, 0, Bytes) -> Bytes;
encode(Term, N, Bytes) -> encode(Term, N - 1, Bytes + byte_size(term_to_binary(Term))).

decode(_, 0, Count) -> Count;
decode(Binary, N, Count) ->
    ?MODULE:keep(binary_to_term(Binary)),
    decode(Binary, N - 1, Count + 1).

%% The compiler must take it that somebody looks at the term.
keep(_) -> ok.
