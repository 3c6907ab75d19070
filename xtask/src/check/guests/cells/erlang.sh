set -e
cat > test.erl <<'R'
-module(test).
-export([main/0]).
main() ->
    Self = self(),
    [spawn(fun() -> Self ! lists:sum(lists:seq(1, N)) end) || N <- lists:seq(1, 500)],
    Sum = lists:sum([receive Part -> Part end || _ <- lists:seq(1, 500)]),
    Big = lists:foldl(fun(N, All) -> N * All end, 1, lists:seq(1, 50)) rem 1000003,
    Words = [binary_to_list(Word) || Word <- binary:split(<<"a,b,c">>, <<",">>, [global])],
    {'EXIT', {badarith, _}} = (catch 1 / list_to_integer("0")),
    io:format("~p ~p ~p~n", [Sum, Big, Words]).
R
erlc test.erl
test "$(erl -noshell -s test main -s init stop)" = '20958500 850717 ["a","b","c"]'
