#!/usr/bin/env escript
%% Writes the term vectors beside this file:
%%   terms.txt    what Erlang accepts      name <TAB> hex
%%   refused.txt  what Erlang refuses      name <TAB> hex
%% Each line is a whole external term with its version byte. Erlang judges every
%% line while it is written: a wrong expectation ends the run. Names that begin
%% with "decoder/" are structurally sound; only building the term fails.
-mode(compile).

main(_) ->
    Dir = filename:dirname(escript:script_name()),
    write(filename:join(Dir, "terms.txt"), true, good()),
    write(filename:join(Dir, "refused.txt"), false, refused()).

write(File, Accepted, Vectors) ->
    Lines = [begin
                 Accepted =:= accepts(Bytes) orelse
                     begin
                         io:format("~s: Erlang disagrees~n", [Name]),
                         halt(1)
                     end,
                 [Name, $\t, hex(Bytes), $\n]
             end || {Name, Bytes} <- Vectors],
    ok = file:write_file(File, Lines).

%% Accepted means: decoded, and from exactly these bytes.
accepts(Bytes) ->
    try binary_to_term(Bytes, [used]) of
        {_, Used} -> Used =:= byte_size(Bytes)
    catch
        error:badarg -> false
    end.

hex(Bytes) -> [io_lib:format("~2.16.0b", [B]) || <<B>> <= Bytes].

name(Format, Args) -> io_lib:format(Format, Args).

t(Name, Term) -> {Name, term_to_binary(Term)}.

raw(Name, Body) -> {Name, <<131, Body/binary>>}.

good() ->
    integers() ++ floats() ++ atoms() ++ binaries() ++ lists() ++ maps() ++
        identifiers() ++ funs() ++ nested() ++ compressed() ++ by_hand().

integers() ->
    Edges = [0, 1, 127, 128, 255, 256, 32767, 65535, 65536, 1 bsl 27 - 1, 1 bsl 27,
             1 bsl 31 - 1, 1 bsl 31, 1 bsl 32 - 1, 1 bsl 32, 1 bsl 59 - 1, 1 bsl 59,
             1 bsl 63 - 1, 1 bsl 63, 1 bsl 64 - 1, 1 bsl 64, 1 bsl 127, 1 bsl 2039,
             1 bsl 2040 - 1, 1 bsl 2040, 1 bsl 4000 + 12345],
    [t(name("integer/~b", [I]), V) || {I, V} <- lists:zip(lists:seq(1, length(Edges)), Edges)] ++
        [t(name("negative/~b", [I]), -V - 1)
         || {I, V} <- lists:zip(lists:seq(1, length(Edges)), Edges)].

floats() ->
    Values = [0.0, -0.0, 1.0, -1.5, 3.141592653589793, 1.0e308, 5.0e-324,
              1.7976931348623157e308, -1.7976931348623157e308, 2.2250738585072014e-308],
    Numbered = lists:zip(lists:seq(1, length(Values)), Values),
    [t(name("float/~b", [I]), V) || {I, V} <- Numbered] ++
        [{name("float/text/~b", [I]), term_to_binary(V, [{minor_version, 0}])}
         || {I, V} <- Numbered].

atoms() ->
    Plain = list_to_atom(lists:duplicate(255, $a)),
    Latin = list_to_atom(lists:duplicate(255, 16#e4)),
    Wide = list_to_atom(lists:duplicate(255, 16#1f600)),
    Atoms = [{"empty", ''}, {"ok", ok}, {"true", true}, {"nil", nil}, {"undefined", undefined},
             {"latin1", list_to_atom([16#e4, 16#f6])}, {"greek", list_to_atom([16#3b1, 16#3b2])},
             {"plain255", Plain}, {"latin255", Latin}, {"wide255", Wide},
             {"wide64", list_to_atom(lists:duplicate(64, 16#1f600))},
             {"nul", list_to_atom([0])}],
    [{"atom/" ++ N ++ "/" ++ integer_to_list(V), term_to_binary(A, [{minor_version, V}])}
     || {N, A} <- Atoms, V <- [1, 2]].

binaries() ->
    [t("binary/empty", <<>>), t("binary/one", <<0>>), t("binary/text", <<"hello">>),
     t("binary/300", binary:copy(<<"abc">>, 100))] ++
        [t(name("bitstring/~b", [N]), <<16#5a5a5a:N>>) || N <- [1, 7, 9, 15, 17, 23]].

lists() ->
    [t("list/nil", []), t("list/string", "hello"), t("list/bytes300", lists:duplicate(300, 7)),
     t("list/wide", [256, 257]), t("list/mixed", [1, a, <<"b">>, 2.5, []]),
     t("list/improper", [1, 2 | 3]), t("list/improper/nested", [[1 | 2] | [3 | 4]]),
     t("list/of/strings", ["abc", "def", []]), t("list/300", lists:seq(1000, 1299)),
     t("tuple/0", {}), t("tuple/1", {1}), t("tuple/255", list_to_tuple(lists:seq(1, 255))),
     t("tuple/256", list_to_tuple(lists:seq(1, 256)))].

maps() ->
    [t("map/0", #{}), t("map/1", #{a => 1}), t("map/mixed", #{1 => a, "x" => #{}, <<"y">> => 1.5}),
     t("map/32", maps:from_list([{I, I} || I <- lists:seq(1, 32)])),
     t("map/33", maps:from_list([{I, {I}} || I <- lists:seq(1, 33)])),
     t("map/100", maps:from_list([{integer_to_binary(I), I} || I <- lists:seq(1, 100)]))].

%% Identifiers of other nodes with fixed numbers, so that a run repeats itself.
identifiers() ->
    Node = node_name(),
    Long = long_node(),
    [raw("pid/new", <<88, Node/binary, 85:32, 7:32, 3:32>>),
     raw("pid/full", <<88, Node/binary, -1:32, -1:32, -1:32>>),
     raw("pid/long-node", <<88, Long/binary, 85:32, 7:32, 3:32>>),
     raw("pid/old", <<103, Node/binary, 85:32, 7:32, 3>>),
     raw("pid/old-full", <<103, Node/binary, -1:32, -1:32, 3>>),
     raw("pid/latin1-node", <<88, 100, 3:16, 16#e4, "@b", 1:32, 2:32, 3:32>>),
     raw("port/v4", <<120, Node/binary, 16#123456789abc:64, 3:32>>),
     raw("port/new", <<89, Node/binary, 16#fffffff:32, 3:32>>),
     raw("port/old", <<102, Node/binary, 16#fffffff:32, 3>>),
     raw("ref/old", <<101, Node/binary, 16#3ffff:32, 3>>)] ++
        [raw(name("ref/newer/~b", [N]),
             <<90, N:16, Node/binary, 9:32, (words(N))/binary>>) || N <- [1, 2, 3, 4, 5]] ++
        [raw(name("ref/new/~b", [N]),
             <<114, N:16, Node/binary, 3, (words(N))/binary>>) || N <- [1, 2, 3, 4, 5]] ++
        [t("pid/encoded", binary_to_term(<<131, 88, Node/binary, 85:32, 7:32, 3:32>>)),
         t("port/encoded", binary_to_term(<<131, 120, Node/binary, 1:64, 3:32>>)),
         t("ref/encoded",
           binary_to_term(<<131, 90, 3:16, Node/binary, 9:32, (words(3))/binary>>))].

node_name() -> <<119, 14, "shop@127.0.0.1">>.

long_node() ->
    Name = binary:copy(<<16#c3, 16#a4>>, 200),
    <<118, (byte_size(Name) + 2):16, Name/binary, "@b">>.

words(N) -> << <<(16#3ffff - I):32>> || I <- lists:seq(1, N) >>.

funs() ->
    {ok, Module, Code} = compile:forms(
        [{attribute, 1, module, terms_funs}, {attribute, 2, export, [{make, 2}]},
         {function, 3, make, 2,
          [{clause, 3, [{var, 3, 'A'}, {var, 3, 'B'}], [],
            [{'fun', 3, {clauses, [{clause, 3, [{var, 3, 'X'}], [],
              [{tuple, 3, [{var, 3, 'A'}, {var, 3, 'B'}, {var, 3, 'X'}]}]}]}}]}]}],
        [deterministic]),
    {module, Module} = code:load_binary(Module, "terms_funs", Code),
    Inner = fun_bytes(1, <<97, 5>>),
    [t("fun/external", fun lists:map/2), t("fun/local", Module:make(one, <<"two">>)),
     t("fun/local/nested", {Module:make(Module:make(1, 2), [x]), tail}),
     raw("fun/free/0", fun_bytes(0, <<>>)), raw("fun/free/1", Inner),
     raw("fun/in/fun", fun_bytes(2, <<Inner/binary, 106>>)),
     raw("fun/free/255", fun_bytes(255, binary:copy(<<106>>, 255))),
     raw("fun/old-index/wide", fun_bytes(0, <<98, -1:32>>, <<110, 4, 1, 9:32/little>>, <<>>)),
     raw("export/wide-arity", <<113, 119, 1, "a", 115, 1, "b", 98, 0, 0, 1, 0>>),
     raw("fun/old-index/largest",
         fun_bytes(0, <<110, 8, 0, (1 bsl 59 - 1):64/little>>,
                   <<110, 8, 1, (1 bsl 59):64/little>>, <<>>)),
     raw("export/big-arity", <<113, 100, 0, 1, "a", 118, 0, 1, "b", 110, 1, 0, 2>>)].

fun_bytes(Count, Free) -> fun_bytes(Count, <<97, 1>>, <<98, 12345:32>>, Free).

fun_bytes(Count, OldIndex, OldUniq, Free) ->
    Node = node_name(),
    Body = <<2, 16#0123456789abcdef:128, 3:32, Count:32, 119, 1, "m", OldIndex/binary,
             OldUniq/binary, 88, Node/binary, 1:32, 2:32, 3:32, Free/binary>>,
    <<112, (byte_size(Body) + 4):32, Body/binary>>.

nested() ->
    Call = {'$gen_call', {binary_to_term(<<131, 88, (node_name())/binary, 1:32, 2:32, 3:32>>),
                          [alias | binary_to_term(<<131, 90, 3:16, (node_name())/binary, 9:32,
                                                    (words(3))/binary>>)]},
            {is_auth, 'a@b'}},
    [t("nested/call", Call), t("nested/lists", deep_list(60)), t("nested/tuples", deep_tuple(70)),
     t("nested/tails", deep_tail(65)),
     t("nested/maps", #{#{a => []} => #{b => [#{c => {}}]}}),
     t("nested/everything", {ok, [1, -1, 1.5, <<"b">>, <<1:3>>, "s", #{k => [v | t]}], 1 bsl 70,
                             fun lists:map/2})].

deep_list(0) -> [];
deep_list(N) -> [deep_list(N - 1)].

deep_tuple(0) -> {};
deep_tuple(N) -> {deep_tuple(N - 1)}.

deep_tail(0) -> [];
deep_tail(N) -> [{}, {N, deep_tail(N - 1)}].

compressed() ->
    Text = lists:duplicate(50, <<"the same again ">>),
    [{name("compressed/~b", [L]), term_to_binary(Text, [{compressed, L}])} || L <- [1, 6, 9]] ++
        [raw("compressed/hand", packed(<<97, 1>>, 2)),
         raw("compressed/inner-rest", packed(<<97, 1, 97, 2>>, 4))].

packed(Plain, Claimed) -> <<80, Claimed:32, (zlib:compress(Plain))/binary>>.

%% Forms no encoder of today chooses.
by_hand() ->
    [raw("hand/string/empty", <<107, 0:16>>),
     raw("hand/list/empty-nil", <<108, 0:32, 106>>),
     raw("hand/list/empty-tail", <<108, 0:32, 97, 5>>),
     raw("hand/list/string-tail", <<108, 1:32, 97, 1, 107, 2:16, 2, 3>>),
     raw("hand/integer/wide", <<98, 5:32>>),
     raw("hand/big/0", <<110, 0, 0>>), raw("hand/big/-0", <<110, 0, 1>>),
     raw("hand/big/sign2", <<110, 1, 2, 5>>), raw("hand/big/zeros", <<110, 9, 0, 5, 0:64>>),
     raw("hand/large-big/0", <<111, 0:32, 0>>), raw("hand/large-big/1", <<111, 1:32, 1, 7>>),
     raw("hand/bits/empty", <<77, 0:32, 0>>), raw("hand/bits/8", <<77, 1:32, 8, 255>>),
     raw("hand/bits/masked", <<77, 1:32, 3, 255>>),
     raw("hand/large-tuple/0", <<105, 0:32>>), raw("hand/large-tuple/1", <<105, 1:32, 106>>),
     raw("hand/map/unsorted", <<116, 2:32, 97, 2, 97, 1, 97, 1, 97, 1>>),
     raw("hand/atom/small-latin1", <<115, 2, 16#e4, "x">>),
     raw("hand/atom/long-utf8", <<118, 0, 1, "a">>),
     raw("hand/atom/nonchar", <<119, 3, 16#ef, 16#bf, 16#bf>>)] ++
        [raw("hand/float/" ++ S, text(S))
         || S <- ["1.5e3", "+5.0", "-0.0", "1.0E5", "1,0", "1.0e-999", "1.0e-310", "0.0e999",
                  "1.2345678901234567890123456789", "1.7976931348623158e308",
                  "1.79769313486231580793728e308", "0.17976931348623157e309",
                  "17976931348623157.0e292", "0.00001e312"]].

text(S) -> <<99, (list_to_binary(S))/binary, 0:((31 - length(S)) * 8)>>.

refused() ->
    Node = node_name(),
    [raw("bits/0-of-1", <<77, 1:32, 0, 255>>), raw("bits/9", <<77, 1:32, 9, 255>>),
     raw("bits/1-of-0", <<77, 0:32, 1>>),
     raw("float/nan", <<70, 16#7ff8000000000000:64>>),
     raw("float/inf", <<70, 16#7ff0000000000000:64>>),
     raw("float/-inf", <<70, 16#fff0000000000000:64>>),
     raw("float/snan", <<70, 16#7ff0000000000001:64>>),
     raw("float/no-end", <<99, "1.23456789012345678901234567890">>),
     raw("ref/6", <<90, 6:16, Node/binary, 9:32, (words(6))/binary>>),
     raw("ref/old-word", <<101, Node/binary, 16#40000:32, 3>>),
     raw("ref/old-creation", <<101, Node/binary, 1:32, 4>>),
     raw("ref/new-word", <<114, 2:16, Node/binary, 3, 16#40000:32, 1:32>>),
     raw("ref/new-creation", <<114, 2:16, Node/binary, 4, 1:32, 1:32>>),
     raw("pid/old-creation", <<103, Node/binary, 1:32, 1:32, 4>>),
     raw("port/old-creation", <<102, Node/binary, 1:32, 4>>),
     raw("pid/node-integer", <<88, 97, 1, 1:32, 1:32, 1:32>>),
     raw("export/negative", <<113, 119, 1, "a", 119, 1, "b", 98, -1:32>>),
     raw("export/module", <<113, 97, 1, 119, 1, "b", 97, 2>>),
     raw("export/arity", <<113, 119, 1, "a", 119, 1, "b", 119, 1, "c">>),
     raw("atom/256", <<118, 256:16, (binary:copy(<<"a">>, 256))/binary>>),
     raw("atom/latin1-256", <<100, 256:16, (binary:copy(<<"a">>, 256))/binary>>),
     raw("atom/wide-256", <<118, 512:16, (binary:copy(<<16#c3, 16#a4>>, 256))/binary>>),
     raw("atom/byte", <<119, 1, 255>>), raw("atom/overlong", <<119, 2, 192, 128>>),
     raw("atom/overlong3", <<119, 3, 224, 130, 128>>),
     raw("atom/overlong4", <<119, 4, 240, 130, 128, 128>>),
     raw("atom/surrogate", <<119, 3, 237, 160, 128>>),
     raw("atom/over", <<119, 4, 244, 144, 128, 128>>), raw("atom/cut", <<119, 2, "a", 195>>),
     raw("atom/continuation", <<119, 2, "a", 128>>),
     raw("compressed/inside", <<104, 1, (packed(<<97, 1>>, 2))/binary>>),
     raw("compressed/longer", packed(<<97, 1, 97, 2>>, 2)),
     raw("compressed/shorter", packed(<<97, 1>>, 4)),
     raw("compressed/nothing", packed(<<>>, 0)),
     raw("compressed/garbage", <<80, 2:32, "not a zlib stream">>),
     raw("decoder/compressed/twice",
         begin P = packed(<<97, 1>>, 2), packed(P, byte_size(P)) end),
     raw("decoder/compressed/version", packed(<<131, 97, 1>>, 3)),
     raw("decoder/map/duplicate", <<116, 2:32, 97, 1, 97, 1, 97, 1, 97, 1>>),
     raw("cache-ref", <<82, 0>>), raw("unknown/0", <<0>>), raw("unknown/255", <<255>>),
     raw("unknown/version", <<131, 97, 1>>),
     raw("fun/module", begin <<H:29/binary, _:3/binary, T/binary>> = tail_of(fun_bytes(0, <<>>)),
                             <<112, H/binary, 97, 1, T/binary>> end),
     raw("fun/free/256", fun_bytes(256, binary:copy(<<106>>, 256))),
     raw("fun/old-index", fun_bytes(0, <<119, 1, "a">>, <<97, 1>>, <<>>)),
     raw("fun/old-uniq", fun_bytes(0, <<97, 1>>, <<110, 8, 0, -1:64/little>>, <<>>)),
     raw("fun/old-uniq/over",
         fun_bytes(0, <<97, 1>>, <<110, 8, 0, (1 bsl 59):64/little>>, <<>>)),
     raw("fun/old-uniq/under",
         fun_bytes(0, <<97, 1>>, <<110, 8, 1, (1 bsl 59 + 1):64/little>>, <<>>)),
     raw("removed/fun", <<117, 0:32, 103, Node/binary, 1:32, 1:32, 1, 119, 1, "m", 97, 1, 97, 2>>),
     raw("local", <<121, 1, 2, 3, 4, 97, 1>>),
     raw("record", <<67, 1:32, 1, 119, 1, "m", 119, 1, "r", 119, 1, "a", 97, 1>>)] ++
        [raw("float/" ++ S, text(S))
         || S <- ["", " 1.5", "1.5abc", "15", "1e5", ".5", "5.", "5.e3", "1.0e", "1.0e+", "nan",
                  "inf", "0x1.8p3", "1.0e999", "1.8e308", "0.18e309", "1.7976931348623159e308",
                  "1.79769313486231580793729e308", "0.00001e314", "--1.0", "+-1.0"]].

tail_of(<<_, Tail/binary>>) -> Tail.
