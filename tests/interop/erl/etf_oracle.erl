%% Judges an implementation of the External Term Format from outside. Packets
%% (4-byte length) come on stdin and are answered on stdout:
%%   {make, Seed, Count}  -> Count terms of every kind, as one list
%%   {same, Binaries}     -> the indexes of those that differ from the terms
%%                           made last
%%   written              -> those terms as Erlang writes them, with `deterministic`
%%   {echo, Binaries}     -> each one read and written again, or error
%%   {accepts, Binaries}  -> for each, whether it can be read
%%   {order, Terms}       -> for all neighbours in the list: -1, 0 or 1
-module(etf_oracle).
-export([main/0]).

main() ->
    Port = open_port({fd, 0, 1}, [binary, {packet, 4}, eof]),
    loop(Port).

loop(Port) ->
    receive
        {Port, {data, Data}} ->
            port_command(Port, term_to_binary(answer(binary_to_term(Data)))),
            loop(Port);
        {Port, eof} ->
            halt(0)
    end.

answer({make, Seed, Count}) ->
    Terms = make(Seed, Count),
    put(made, Terms),
    Terms;
answer({same, Binaries}) ->
    Terms = get(made),
    [I || {I, T, B} <- lists:zip3(lists:seq(0, length(Terms) - 1), Terms, Binaries),
          binary_to_term(B) =/= T];
answer(written) ->
    [term_to_binary(T, [{minor_version, 2}, deterministic]) || T <- get(made)];
answer({echo, Binaries}) ->
    [try term_to_binary(binary_to_term(B)) catch _:_ -> error end || B <- Binaries];
answer({accepts, Binaries}) ->
    [try _ = binary_to_term(B), true catch _:_ -> false end || B <- Binaries];
answer({order, Terms}) ->
    order(Terms).

order([A, B | Rest]) when A < B -> [-1 | order([B | Rest])];
order([A, B | Rest]) when A > B -> [1 | order([B | Rest])];
order([_, B | Rest]) -> [0 | order([B | Rest])];
order(_) -> [].

make(Seed, Count) ->
    _ = rand:seed(exsss, {Seed, 17, 42}),
    [term(pick([1, 2, 2, 3, 4])) || _ <- lists:seq(1, Count)].

pick(List) -> lists:nth(rand:uniform(length(List)), List).
below(N) -> rand:uniform(N) - 1.

term(0) -> leaf(below(17));
term(Depth) ->
    case below(10) of
        0 -> list_to_tuple(terms(Depth));
        1 -> terms(Depth);
        2 -> improper(terms(Depth), leaf(pick([0, 1, 2, 3, 4, 7, 9])));
        3 -> maps:from_list([{term(Depth - 1), term(Depth - 1)} || _ <- terms(0)]);
        4 -> maps:from_list([{leaf(below(8)), term(Depth - 1)} || _ <- terms(0)]);
        5 -> closure(term(Depth - 1), leaf(below(17)));
        _ -> leaf(below(17))
    end.

terms(0) -> lists:seq(1, below(8));
terms(Depth) -> [term(Depth - 1) || _ <- lists:seq(1, pick([0, 1, 2, 3, 5, 8]))].

improper([], Tail) -> Tail;
improper(List, Tail) -> List ++ Tail.

closure(A, B) -> fun(X) -> {A, B, X} end.

leaf(0) -> below(300);
leaf(1) -> atom();
leaf(2) -> pick([1.0, 1, 0.0, 2, 2.0, true, false, nil, undefined, [], {}, #{}]);
leaf(3) -> float_value();
leaf(4) -> rand:bytes(below(40));
leaf(5) -> pick([-1, 1]) * (1 bsl below(70) + below(3) - 1);
leaf(6) -> pick([-1, 1]) * big(pick([8, 9, 16, 255, 256, 257, 300]));
leaf(7) -> bits(below(60));
leaf(8) -> [below(256) || _ <- lists:seq(1, below(30))];
leaf(9) -> pid();
leaf(10) -> reference();
leaf(11) -> port();
leaf(12) -> fun lists:map/2;
leaf(13) -> erlang:make_fun(atom(), atom(), below(256));
leaf(14) -> lists:duplicate(pick([254, 255, 256, 300]), pick([7, a, <<"x">>]));
leaf(15) -> list_to_tuple(lists:duplicate(pick([254, 255, 256, 300]), x));
leaf(16) -> unicode:characters_to_binary([pick([$a, $z, 233, 8364, 128512]) || _ <- terms(0)]).

atom() ->
    case below(6) of
        0 -> list_to_atom([pick([$a, $b, $\s, $', 233, 960, 20320, 128512])
                           || _ <- lists:seq(1, below(12))]);
        1 -> list_to_atom(lists:duplicate(pick([200, 255]), pick([$x, 233, 960, 128512])));
        _ -> pick([ok, error, true, false, nil, undefined, '', 'Quoted atom', reserved_word])
    end.

float_value() ->
    case <<(rand:bytes(8))/binary>> of
        <<F/float>> when F == F -> F;
        _ -> -1.5
    end.

big(Bytes) -> binary:decode_unsigned(<<1, (rand:bytes(Bytes - 1))/binary>>).

bits(N) -> <<B:N/bitstring, _/bitstring>> = rand:bytes(8), B.

node_atom() ->
    pick([atom_form(<<"shop@127.0.0.1">>), atom_form(<<"b@h">>),
          atom_form(unicode:characters_to_binary([233, $@, 960]))]).

atom_form(Name) -> <<119, (byte_size(Name)), Name/binary>>.

u32() -> pick([0, 1, 255, 1 bsl 15, below(1 bsl 32)]).

pid() ->
    case below(3) of
        0 -> self();
        _ -> binary_to_term(<<131, 88, (node_atom())/binary, (below(1 bsl 28)):32,
                              (below(1 bsl 13)):32, (u32() bor 1):32>>)
    end.

reference() ->
    case below(3) of
        0 -> make_ref();
        _ ->
            N = pick([1, 2, 3, 4, 5]),
            Words = << <<(u32()):32>> || _ <- lists:seq(1, N - 1) >>,
            binary_to_term(<<131, 90, N:16, (node_atom())/binary, (u32() bor 1):32,
                             (below(1 bsl 18)):32, Words/binary>>)
    end.

port() ->
    case below(3) of
        0 -> hd(erlang:ports());
        1 -> binary_to_term(<<131, 89, (node_atom())/binary, (below(1 bsl 28)):32,
                              (u32() bor 1):32>>);
        _ -> binary_to_term(<<131, 120, (node_atom())/binary, (below(1 bsl 60)):64,
                              (u32() bor 1):32>>)
    end.
