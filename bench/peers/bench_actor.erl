%% A real Erlang node that takes part: see __init__.py for its commands.
-module(bench_actor).
-export([main/0]).

-define(SHIFT, 26).
-define(PING_NS_MAX, 3000000000).

main() ->
    spawn(fun start/0).

start() ->
    register(echo, spawn(fun echo/0)),
    register(bulk, spawn(fun drop/0)),
    io:format("{\"ready\": true, \"address\": \"~s\"}~n", [node()]),
    commands().

commands() ->
    case io:get_line(standard_io, "") of
        Line when is_list(Line) ->
            try
                obey(string:lexemes(Line, " \n"))
            catch
                _:Reason -> io:format("{\"error\": \"~s\"}~n", [plain(Reason)])
            end,
            commands();
        _ ->
            halt(0)
    end.

%% What may stand in a JSON string.
plain(Term) ->
    Text = lists:flatten(io_lib:format("~0p", [Term])),
    [case C of $" -> $'; $\\ -> $/; _ -> C end || C <- Text].

obey(["receive", _Form, Count, Size, Senders, Boxes]) ->
    receive_all(num(Count), num(Size), num(Senders), num(Boxes));
obey(["connect" | Dests]) ->
    [true = net_kernel:connect_node(node_of(D)) || D <- Dests],
    io:format("{\"connected\": true}~n");
obey(["send", _Form, Count, Size, Sender | Words]) ->
    First = num(Sender) bsl ?SHIFT,
    Dests = [dest(W) || W <- Words],
    Payload = payload(num(Size)),
    case Dests of
        [One] -> send_one(One, First, First + num(Count), Payload);
        _ -> send_each(Dests, First, First + num(Count), Payload)
    end,
    io:format("{\"sent\": ~s}~n", [Count]);
obey(["serve", Count]) ->
    io:format("{\"armed\": true}~n{\"served\": ~s}~n", [Count]);
obey(["ping", _Form, Count, Size, Dest]) ->
    Times = pings(num(Count), payload(num(Size)), dest(Dest)),
    Sorted = list_to_tuple(lists:sort(Times)),
    io:format("{\"p50\": ~p, \"p99\": ~p, \"p999\": ~p, \"mean\": ~p}~n",
              [share(Sorted, 0.5), share(Sorted, 0.99), share(Sorted, 0.999),
               lists:sum(Times) / tuple_size(Sorted) / 1000]);
obey(["bulk", "off"]) ->
    case get(bulk_sender) of
        undefined -> ok;
        Pid ->
            Ref = monitor(process, Pid),
            exit(Pid, kill),
            receive {'DOWN', Ref, _, _, _} -> ok end
    end,
    io:format("{\"bulk\": \"off\"}~n");
obey(["bulk", Size, Dest]) ->
    Payload = payload(num(Size)),
    To = dest(Dest),
    put(bulk_sender, spawn(fun() -> send_bulk(To, 0, Payload) end)),
    io:format("{\"bulk\": ~s}~n", [Size]);
obey(["cycle", Count, Dest]) ->
    Begin = now_ns(),
    cycle(num(Count), node_of(Dest)),
    io:format("{\"cycles\": ~s, \"ns\": ~b}~n", [Count, now_ns() - Begin]).

num(Text) -> list_to_integer(Text).
node_of(Word) -> [_, Node] = string:split(Word, "/"), list_to_atom(Node).
dest(Word) ->
    [Name, Node] = string:split(Word, "/"),
    {list_to_atom(Name), list_to_atom(Node)}.

payload(Size) ->
    << <<(I band 255)>> || I <- lists:seq(0, Size - 1) >>.

now_ns() -> os:perf_counter(nanosecond).

%% Receiving: one process for each name, each with its own count.

receive_all(Count, Size, Senders, Boxes) ->
    Me = self(),
    Tail = payload(Size),
    Pids = [begin
                Name = list_to_atom("sink" ++ integer_to_list(I)),
                {Pid, Ref} = spawn_monitor(
                    fun() ->
                        register(Name, self()),
                        Me ! {armed, self()},
                        Me ! {done, self(), sink(Count, Senders, Tail)}
                    end),
                receive {armed, Pid} -> ok end,
                {Pid, Ref}
            end || I <- lists:seq(0, Boxes - 1)],
    io:format("{\"armed\": true}~n"),
    try [receive
             {done, Pid, Times} -> demonitor(Ref, [flush]), Times;
             {'DOWN', Ref, process, Pid, Why} -> throw({wrong, Why})
         end || {Pid, Ref} <- Pids] of
        Done ->
            {Firsts, Lasts} = lists:unzip(Done),
            io:format("{\"first\": ~b, \"last\": ~b, \"counted\": ~b}~n",
                      [lists:min(Firsts), lists:max(Lasts), (Count - 1) * Boxes])
    catch
        throw:{wrong, Why} ->
            Text = io_lib:format("~0p", [Why]),
            io:format("{\"error\": ~0p}~n", [lists:flatten(Text)])
    end.

sink(Count, 1, Tail) ->
    receive {event, 0, _} -> ok end,
    First = now_ns(),
    Payload = in_order(1, Count),
    Last = now_ns(),
    true = Payload =:= Tail,
    {First, Last};
sink(Count, Senders, Tail) ->
    Expected = maps:from_list([{S, S bsl ?SHIFT} || S <- lists:seq(0, Senders - 1)]),
    Id = receive {event, I, _} -> I end,
    First = now_ns(),
    Sender = Id bsr ?SHIFT,
    Id = map_get(Sender, Expected),
    Payload = of_many(Count - 1, Expected#{Sender := Id + 1}, undefined),
    Last = now_ns(),
    true = Payload =:= Tail,
    {First, Last}.

in_order(Last, Count) when Last =:= Count - 1 ->
    receive {event, Id, Payload} -> Last = Id, Payload end;
in_order(Want, Count) ->
    receive {event, Id, _} -> Want = Id end,
    in_order(Want + 1, Count).

of_many(0, _, Payload) -> Payload;
of_many(Left, Expected, _) ->
    receive
        {event, Id, Payload} ->
            Sender = Id bsr ?SHIFT,
            Id = map_get(Sender, Expected),
            of_many(Left - 1, Expected#{Sender := Id + 1}, Payload)
    end.

%% Sending: a process that is too fast is suspended by its node.

send_one(_, Stop, Stop, _) -> ok;
send_one(Dest, Id, Stop, Payload) ->
    Dest ! {event, Id, Payload},
    send_one(Dest, Id + 1, Stop, Payload).

send_each(_, Stop, Stop, _) -> ok;
send_each(Dests, Id, Stop, Payload) ->
    [Dest ! {event, Id, Payload} || Dest <- Dests],
    send_each(Dests, Id + 1, Stop, Payload).

send_bulk(Dest, Id, Payload) ->
    Dest ! {event, Id, Payload},
    send_bulk(Dest, Id + 1, Payload).

drop() -> receive _ -> drop() end.

%% Round trips.

echo() ->
    receive {From, Id, Payload} -> From ! {Id, Payload} end,
    echo().

%% In a process of its own: the one that reads commands has other messages.
pings(Count, Payload, Dest) ->
    Me = self(),
    {_, Ref} = spawn_monitor(fun() -> Me ! {times, pings(0, Count, Payload, Dest, now_ns() + ?PING_NS_MAX, [])} end),
    receive
        {times, Times} -> demonitor(Ref, [flush]), Times;
        {'DOWN', Ref, _, _, Why} -> exit(Why)
    end.

pings(Count, Count, _, _, _, Times) -> Times;
pings(Id, Count, Payload, Dest, Stop, Times) ->
    case now_ns() of
        Begin when Begin > Stop ->
            Times;
        Begin ->
            Dest ! {self(), Id, Payload},
            receive {Got, _} -> Id = Got end,
            pings(Id + 1, Count, Payload, Dest, Stop, [now_ns() - Begin | Times])
    end.

share(Sorted, Share) ->
    element(max(1, ceil(Share * tuple_size(Sorted))), Sorted) / 1000.

%% Connections.

cycle(0, _) -> ok;
cycle(Left, Node) ->
    connect(Node),
    %% false: the other side ended it first, as it may when it takes it for the last one.
    _ = erlang:disconnect_node(Node),
    cycle(Left - 1, Node).

%% The other side may not have noticed yet that the last connection is gone.
connect(Node) ->
    case net_kernel:connect_node(Node) of
        true -> true;
        false -> connect(Node)
    end.
