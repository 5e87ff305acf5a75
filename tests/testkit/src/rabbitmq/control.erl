Path = "@SOCKET@",
Evaluate = fun(Text) ->
    {ok, Tokens, _} = erl_scan:string(Text),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Expressions, []),
    Value
end,
Serve = fun(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Question} ->
            Answer = try {$+, Evaluate(unicode:characters_to_list(Question))}
                     catch Class:Reason -> {$-, {Class, Reason}}
                     end,
            {Sign, Value} = Answer,
            Text = case is_binary(Value) of
                true -> Value;
                false -> io_lib:format("~0tp", [Value])
            end,
            gen_tcp:send(Socket, unicode:characters_to_binary([Sign, Text])),
            gen_tcp:close(Socket);
        {error, _} -> ok
    end
end,
Accept = fun Again(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn(fun() -> receive go -> Serve(Socket) end end),
    gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    Again(Listener)
end,
spawn(fun() ->
    file:delete(Path),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {packet, 4}, {ifaddr, {local, Path}}]),
    Accept(Listener)
end).
