%% Stands before OTP's module of this name and has the node do without some distribution flags, as
%% distribution carriers may. What OTP's module does is done by a copy of it, named dist_utlx.
%%
%% Loaded over the original by test_flags.py, which makes the copy.
-module(dist_util).
-export([strict_order_flags/0, rejectable_flags/0, handshake_other_started/1,
         handshake_we_started/1, shutdown/3, shutdown/4, is_node_name/1, split_node/1,
         is_allowed/2, start_timer/1, setup_timer/2, reset_timer/1, cancel_timer/1,
         net_ticker_spawn_options/0]).

%% Of #hs_data{} in kernel/include/dist_util.hrl, the same in OTP 21 to 28.
-define(REJECT_FLAGS, 25).

less(Handshake) ->
    setelement(?REJECT_FLAGS, Handshake, persistent_term:get(rejected_flags)).

handshake_other_started(Handshake) -> dist_utlx:handshake_other_started(less(Handshake)).
handshake_we_started(Handshake) -> dist_utlx:handshake_we_started(less(Handshake)).

strict_order_flags() -> dist_utlx:strict_order_flags().
rejectable_flags() -> dist_utlx:rejectable_flags().
shutdown(A, B, C) -> dist_utlx:shutdown(A, B, C).
shutdown(A, B, C, D) -> dist_utlx:shutdown(A, B, C, D).
is_node_name(A) -> dist_utlx:is_node_name(A).
split_node(A) -> dist_utlx:split_node(A).
is_allowed(A, B) -> dist_utlx:is_allowed(A, B).
start_timer(A) -> dist_utlx:start_timer(A).
setup_timer(A, B) -> dist_utlx:setup_timer(A, B).
reset_timer(A) -> dist_utlx:reset_timer(A).
cancel_timer(A) -> dist_utlx:cancel_timer(A).
net_ticker_spawn_options() -> dist_utlx:net_ticker_spawn_options().
