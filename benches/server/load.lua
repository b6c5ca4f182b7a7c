-- wrk's requests to a binding of `embercask serve`: gets, puts, or a random mix, of existing keys.
local keys, mode = 100000, "get"
local value = string.rep("v", 100)
local headers = { ["X-KV-Namespace"] = "LOAD" }

function init(args)
  mode = args[1] or mode
  keys = tonumber(args[2]) or keys
  math.randomseed(tonumber(args[3]) or 1)
end

function request()
  local path = "/key%3A" .. string.format("%012d", math.random(0, keys - 1)) .. "?urlencoded=true"
  if mode == "put" or (mode == "mix" and math.random(2) == 1) then
    return wrk.format("PUT", path, headers, value)
  end
  return wrk.format("GET", path, headers)
end

local wrong = 0
function response(status)
  if status ~= 200 then wrong = wrong + 1 end
  if wrong == 1 then io.stderr:write("a request was answered with " .. status .. "\n") end
end
