"""Steps of the server's: nothing is between two places when a process dies."""

from __future__ import annotations

from dispatchers.redis import Script

_DISPATCH = """
-- id, queue, is it declared, due in seconds since the epoch or '', key or '', digest or '',
-- seconds until RQ forgets it or 0, field, value ...
local over = {failed = true, stopped = true, canceled = true}
local function dispatch(id, queue, declared, due, key, digest, ttl, ...)
    local job, list = 'rq:job:' .. id, 'rq:queue:' .. queue
    if declared == '0' and redis.call('SISMEMBER', 'rq:queues', list) == 0 then
        return -1
    end
    local function same(holder)
        local its = redis.call('HGET', 'rq:job:' .. holder, 'dispatchers_digest')
        return (digest == '' or not its or its == digest) and holder or -2
    end
    local status = redis.call('HGET', job, 'status')
    if status and not over[status] then
        return same(id)
    end
    if key ~= '' then
        local holder = redis.call('GET', key)
        if holder and holder ~= id then
            local its = redis.call('HGET', 'rq:job:' .. holder, 'status')
            if its and not over[its] then
                return same(holder)
            end
        end
    end
    if due ~= '' then
        redis.call('ZADD', 'rq:scheduled:' .. queue, due, id)
    else
        redis.call('RPUSH', list, id)
    end
    if status then
        local origin = redis.call('HGET', job, 'origin') or queue
        redis.call('ZREM', 'rq:failed:' .. origin, id)
        redis.call('ZREM', 'rq:canceled:' .. origin, id)
        redis.call('DEL', job)
    end
    redis.call('HSET', job, ...)
    if tonumber(ttl) > 0 then
        redis.call('EXPIRE', job, ttl)
    end
    redis.call('SADD', 'rq:queues', list)
    if key ~= '' then
        redis.call('SET', key, id)
    end
    return 1
end
"""
DISPATCH = Script(_DISPATCH + "return dispatch(unpack(ARGV))")
"""Writes a job and pushes it: 1; -1 where there is no such queue; the id of the job that is the
same work already; -2 where that has another payload. The push comes first: where a queue's key is
no list, nothing was written."""

DISPATCH_IN_ORDER = Script(
    _DISPATCH
    + """
-- number of a job's arguments, its arguments ...
local replies, n = {}, 1
while n <= #ARGV do
    local last = n + ARGV[n]
    local done, reply = pcall(dispatch, unpack(ARGV, n + 1, last))
    if not done and type(reply) == 'string' then
        reply = {err = reply}
    end
    replies[#replies + 1] = reply
    if not done or reply == -1 then
        break
    end
    n = last + 1
end
return replies
"""
)
"""The same for several jobs, up to the first that is refused and may be pushed later."""

TAKE = Script("""
-- token, worker, the time as RQ writes it, are pickled jobs taken, queue ...
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local soonest, left = -1, false
local function due(queue, list, scheduled)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'LIMIT', 0, 100)) do
        redis.call('ZREM', scheduled, id)
        if redis.call('EXISTS', 'rq:job:' .. id) == 1 then
            redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
            redis.call('RPUSH', list, id)
        end
    end
end
local function taken(queue, id, job, ours)
    redis.call('HINCRBY', job, 'dispatchers_deliveries', 1)
    redis.call('HSET', 'rq:dispatchers:leases:' .. queue, id, ARGV[1] .. ':0')
    if ours then
        redis.call('HSET', job, 'status', 'started', 'started_at', ARGV[3], 'worker_name', ARGV[2])
        redis.call('ZADD', 'rq:wip:' .. queue, '+inf', id .. ':' .. ARGV[1])
    end
    return {queue, id, redis.call('HGETALL', job)}
end
local function first(queue, list)
    local start, size = 0, 1
    while true do
        local ids = redis.call('LRANGE', list, start, start + size - 1)
        for _, id in ipairs(ids) do
            local job = 'rq:job:' .. id
            if redis.call('TYPE', job).ok ~= 'hash' then
                redis.call('LREM', list, 1, id)
            else
                local its = redis.call('HMGET', job, 'dispatchers_attempt', 'dispatchers_kind',
                    'data')
                local ours, kind = its[1], its[2]
                if not ours and not kind then
                    return {id, its[3] or ''}
                end
                if ours or kind == 'json' or (kind == 'pickle' and ARGV[4] == '1') then
                    redis.call('LREM', list, 1, id)
                    return taken(queue, id, job, ours)
                end
                start, left = start + 1, true
            end
        end
        if #ids < size then
            return false
        end
        size = 1000
    end
end
for n = 5, #ARGV do
    local queue = ARGV[n]
    local list, scheduled = 'rq:queue:' .. queue, 'rq:scheduled:' .. queue
    local kind = redis.call('TYPE', list).ok
    if kind == 'list' or kind == 'none' then
        due(queue, list, scheduled)
        local found = first(queue, list)
        if found then
            return found
        end
    end
    local next = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
    if next[2] then
        local wait = math.max(math.ceil((next[2] - now) * 1000), 0)
        soonest = soonest < 0 and wait or math.min(soonest, wait)
    end
end
return left and {soonest} or soonest
""")
"""Moves what is due, and takes the first job that this worker can read, with a lease on it: queue,
id and the job's hash. A job of RQ's own that was never looked at is not taken: its id and data.
Else the milliseconds until something is due, or -1, in a list where jobs were passed by. Elements
that name no job are dropped, as RQ does."""

CLASSIFY = Script("""
-- id, kind
if redis.call('EXISTS', 'rq:job:' .. ARGV[1]) == 1 then
    redis.call('HSET', 'rq:job:' .. ARGV[1], 'dispatchers_kind', ARGV[2])
end
return 1
""")
"""Notes the serializer of a job of RQ's own, so that workers which cannot read it pass by."""

ADOPT = Script("""
-- queue, id, token, the time as RQ writes it, field, value ...
local queue, id, token, job = ARGV[1], ARGV[2], ARGV[3], 'rq:job:' .. ARGV[2]
local held = redis.call('HGET', 'rq:dispatchers:leases:' .. queue, id)
if not held or string.sub(held, 1, #token) ~= token or redis.call('EXISTS', job) == 0 then
    return false
end
redis.call('HSET', job, 'status', 'started', 'started_at', ARGV[4], unpack(ARGV, 5))
redis.call('ZADD', 'rq:wip:' .. queue, '+inf', id .. ':' .. token)
return redis.call('HGETALL', job)
""")
"""Makes a taken job of RQ's own one of ours, and returns its hash; nothing if the lease is lost."""

RENEW = Script("""
-- queue, id, token, number
local leases = 'rq:dispatchers:leases:' .. ARGV[1]
local held = redis.call('HGET', leases, ARGV[2])
if not held or string.sub(held, 1, #ARGV[3]) ~= ARGV[3] then
    return 0
end
redis.call('HSET', leases, ARGV[2], ARGV[3] .. ':' .. ARGV[4])
return 1
""")
"""Another value of the lease, which tells observers that its owner lives; 0 where it is lost."""

_PUSH = """
local function push(job, id, queue, after, front)
    local status = 'queued'
    if after > 0 then
        local clock = redis.call('TIME')
        status = 'scheduled'
        redis.call('ZADD', 'rq:scheduled:' .. queue, clock[1] + clock[2] / 1000000 + after, id)
    else
        redis.call(front and 'LPUSH' or 'RPUSH', 'rq:queue:' .. queue, id)
    end
    redis.call('HSET', job, 'status', status)
end
local function forget_key(job, id, after)
    local key = redis.call('HGET', job, 'dispatchers_key')
    if key and redis.call('GET', key) == id then
        redis.call('EXPIRE', key, after)
    end
end
local function fail(job, id, queue, ttl, words, ...)
    local clock = redis.call('TIME')
    redis.call('ZADD', 'rq:failed:' .. queue, clock[1] + clock[2] / 1000000 + ttl, id)
    redis.call('HDEL', job, 'dispatchers_deliveries')
    redis.call('HSET', job, 'status', 'failed', ...)
    redis.call('EXPIRE', job, ttl)
    local results = 'rq:results:' .. id
    redis.call('XADD', results, 'MAXLEN', 10, '*', 'type', 2, 'worker_name', '',
        'exc_string', words)
    redis.call('EXPIRE', results, ttl)
    forget_key(job, id, 0)
end
"""

SETTLE = Script(
    _PUSH
    + """
-- queue, id, token, action, number, field, value ... (before them, with `dead`, why)
local queue, id, token, action, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local job, leases = 'rq:job:' .. id, 'rq:dispatchers:leases:' .. queue
local held = redis.call('HGET', leases, id)
if not held or string.sub(held, 1, #token) ~= token then
    return 0
end
redis.call('HDEL', leases, id)
redis.call('ZREM', 'rq:wip:' .. queue, id .. ':' .. token)
if action == 'release' then
    redis.call('HDEL', job, 'dispatchers_deliveries')
end
if action == 'release' or redis.call('EXISTS', job) == 0 then
    return 1
end
local dependents = redis.call('EXISTS', job .. ':dependents')
if action == 'done' then
    forget_key(job, id, number)
    if number == 0 then
        redis.call('DEL', job)
    else
        redis.call('HSET', job, 'status', 'finished', unpack(ARGV, 6))
        redis.call('EXPIRE', job, number)
        redis.call('ZADD', 'rq:finished:' .. queue, redis.call('TIME')[1] + number, id)
    end
elseif action == 'retry' then
    redis.call('HINCRBY', job, 'dispatchers_attempt', 1)
    redis.call('HDEL', job, 'dispatchers_deliveries')
    push(job, id, queue, number)
elseif action == 'return' then
    redis.call('HINCRBY', job, 'dispatchers_deliveries', -1)
    push(job, id, queue, number)
elseif action == 'leave' then
    redis.call('HINCRBY', job, 'dispatchers_deliveries', -1)
    redis.call('HSET', job, 'dispatchers_kind', 'other')
    redis.call('LPUSH', 'rq:queue:' .. queue, id)
elseif action == 'lost' then
    push(job, id, queue, 0, true)
elseif action == 'dead' then
    fail(job, id, queue, number, unpack(ARGV, 6))
end
return 1 + dependents
"""
)
"""Settles a run and ends its lease: 1, or 2 where other jobs depend on it; 0 where it is lost."""

_UNCLAIM = """
local function unclaim(job, id, queue)
    local due = redis.call('HGET', job, 'dispatchers_due')
    if due then
        redis.call('HDEL', job, 'dispatchers_due')
        redis.call('HSET', job, 'status', 'scheduled')
        redis.call('ZADD', 'rq:scheduled:' .. queue, due, id)
    end
    return due
end
"""

REAP = Script(
    _PUSH
    + _UNCLAIM
    + """
-- queue, id, what its lease was, most deliveries, failure_ttl, why, the time as RQ writes it
local queue, id, ttl = ARGV[1], ARGV[2], tonumber(ARGV[5])
local job, leases, wip = 'rq:job:' .. id, 'rq:dispatchers:leases:' .. queue, 'rq:wip:' .. queue
if redis.call('HGET', leases, id) ~= ARGV[3] then
    return 0
end
redis.call('HDEL', leases, id)
for _, member in ipairs(redis.call('ZRANGE', wip, 0, -1)) do
    if string.sub(member, 1, #id + 1) == id .. ':' then
        redis.call('ZREM', wip, member)
    end
end
local status = redis.call('HGET', job, 'status')
if status ~= 'started' and status ~= 'queued' then
    return 0
end
if unclaim(job, id, queue) then
    return 1
end
local ours = redis.call('HEXISTS', job, 'dispatchers_attempt') == 1
local deliveries = tonumber(redis.call('HGET', job, 'dispatchers_deliveries') or '0')
if not ours and deliveries >= tonumber(ARGV[4]) then
    fail(job, id, queue, ttl, ARGV[6], 'ended_at', ARGV[7])
    return 1
end
push(job, id, queue, 0, true)
return 1
"""
)
"""Gives back what a dead worker had, if its lease is what it was; 1 where that was done. One of
RQ's own jobs that has ended its workers too often is failed; ours are judged when they are run."""

CLAIM = Script("""
-- queue, list or scheduled, first element, number of elements, token
local queue, kind, start, number, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local list, scheduled = 'rq:queue:' .. queue, 'rq:scheduled:' .. queue
local of_list = kind == 'list'
local ids = redis.call(of_list and 'LRANGE' or 'ZRANGE', of_list and list or scheduled, start,
    start + number - 1)
local reply = {#ids}
for _, id in ipairs(ids) do
    local job = 'rq:job:' .. id
    if redis.call('TYPE', job).ok == 'hash'
        and redis.call('HEXISTS', job, 'dispatchers_attempt') == 1 then
        if of_list then
            redis.call('LREM', list, 1, id)
        else
            local due = redis.call('ZSCORE', scheduled, id)
            redis.call('ZREM', scheduled, id)
            redis.call('HSET', job, 'status', 'queued', 'dispatchers_due', due)
        end
        redis.call('HSET', 'rq:dispatchers:leases:' .. queue, id, token .. ':0')
        reply[#reply + 1] = {id, redis.call('HGETALL', job)}
    end
end
return reply
""")
"""Claims our jobs among some elements of a queue, to be moved: the number of elements, then id and
hash of each job. Scheduled ones look queued to observers, as work that would else be dropped."""

LEAVE = Script(
    _PUSH
    + _UNCLAIM
    + """
-- queue, id, token, gone or back
local queue, id, token = ARGV[1], ARGV[2], ARGV[3]
local job, leases = 'rq:job:' .. id, 'rq:dispatchers:leases:' .. queue
local held = redis.call('HGET', leases, id)
if not held or string.sub(held, 1, #token) ~= token then
    return 0
end
redis.call('HDEL', leases, id)
if ARGV[4] == 'gone' then
    forget_key(job, id, 0)
    redis.call('DEL', job)
elseif redis.call('EXISTS', job) == 1 and not unclaim(job, id, queue) then
    push(job, id, queue, 0, true)
end
return 1
"""
)
"""Forgets a claimed job that was moved, or gives it back; 0 where the lease is lost."""

DELETE = Script("""
-- queue, id
if redis.call('ZREM', 'rq:failed:' .. ARGV[1], ARGV[2]) == 0 then
    return 0
end
redis.call('DEL', 'rq:job:' .. ARGV[2], 'rq:results:' .. ARGV[2])
return 1
""")
"""Forgets a failed job; 0 where it is none, any more."""

COUNT = Script("""
-- queue
local queue = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local list, scheduled = 'rq:queue:' .. queue, 'rq:scheduled:' .. queue
local due = redis.call('ZCOUNT', scheduled, '-inf', now)
local oldest = nil
local head = redis.call('LINDEX', list, 0)
if head then
    oldest = redis.call('HGET', 'rq:job:' .. head, 'enqueued_at')
end
local first = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2]
return {redis.call('LLEN', list) + due, redis.call('HLEN', 'rq:dispatchers:leases:' .. queue),
    redis.call('ZCARD', scheduled) - due, redis.call('ZCARD', 'rq:failed:' .. queue),
    oldest or '', first and tostring(now - first) or '', tostring(now)}
""")
"""Counts a queue: waiting, running, delayed, failed, the time at which the first was enqueued,
seconds since the first scheduled one was due, the server's time."""
