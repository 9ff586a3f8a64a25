-- Counts the events of a response that is a stream and adds up what each says it produced, as it passes by.
-- Triton's num_output_tokens is of one event; Envoy's own sse_to_metadata keeps the last value and cannot add.
-- Written with every piece, so that a client that leaves early has been counted too.
local LONGEST_LINE = 262144

function envoy_on_response(handle)
  local kind, encoding = handle:headers():get("content-type"), handle:headers():get("content-encoding")
  if kind == nil or kind:sub(1, 17) ~= "text/event-stream" then
    return
  end
  if encoding ~= nil and encoding ~= "identity" then
    -- It shows no events: said to have none, it would be free of charge. Its length has to tell.
    return
  end
  local events, tokens, rest = 0, nil, ""
  for chunk in handle:bodyChunks() do
    local text, first = rest .. chunk:getBytes(0, chunk:length()), 1
    local last = text:find("\n", 1, true)
    while last do
      if text:sub(first, first + 4) == "data:" then
        events = events + 1
        local said = text:sub(first, last):match('"num_output_tokens"%s*:%s*(%d+)')
        if said then
          tokens = (tokens or 0) + tonumber(said)
        end
      end
      first = last + 1
      last = text:find("\n", first, true)
    end
    rest = text:sub(first)
    if #rest > LONGEST_LINE then
      rest = ""
    end
    if first > 1 then
      -- Asked for anew each time: the object does not outlive the wait for the next piece.
      local metadata = handle:streamInfo():dynamicMetadata()
      metadata:set("headgate.usage", "stream_events", events)
      if tokens then
        metadata:set("headgate.usage", "completion_tokens", tokens)
      end
    end
  end
end
