"""etcd's Python clients against a server: etcd3gw (JSON gateway) and aetcd (gRPC).

Arguments: host, port. Prints what is not as with etcd, and fails then.
"""

import asyncio
import sys

import aetcd
import etcd3gw

failed = []


def check(name, holds, got=None):
    if not holds:
        failed.append(name)
        print(f"{name}: {got!r}")


def gateway(host, port):
    client = etcd3gw.client(host=host, port=port, api_path="/v3/")
    check("put", client.put("gw/a", "1"))
    client.put("gw/b", "2")
    check("get", client.get("gw/a") == [b"1"], client.get("gw/a"))
    pairs = client.get_prefix("gw/")
    check("prefix", [value for value, _ in pairs] == [b"1", b"2"], pairs)
    check("version", pairs[0][1]["key"] == b"gw/a" and int(pairs[0][1]["version"]) == 1, pairs)
    check("create what is there", client.create("gw/a", "x") is False)
    check("create", client.create("gw/new", "x") is True)
    check("replace", client.replace("gw/a", "1", "3") is True)
    check("replace another", client.replace("gw/a", "1", "4") is False)
    lease = client.lease(ttl=30)
    client.put("gw/l", "x", lease=lease)
    check("lease", 0 < lease.ttl() <= 30)
    check("lease keys", lease.keys() == [b"gw/l"], lease.keys())
    check("lease refresh", lease.refresh() == 30)
    check("revoke", lease.revoke() and client.get("gw/l") == [])
    lock = client.lock("gw-lock", ttl=10)
    check("lock", lock.acquire() and lock.is_acquired())
    check("lock again", client.lock("gw-lock", ttl=10).acquire() is False)
    check("unlock", lock.release())
    events, cancel = client.watch("gw/w")
    client.put("gw/w", "x")
    event = next(events)
    check("watch", (event["kv"]["key"], event["kv"]["value"]) == (b"gw/w", b"x"), event)
    cancel()
    members = client.members()
    check("members", len(members) == 1 and members[0]["ID"] and members[0]["name"], members)
    check("status", {"version", "leader", "dbSize"} <= set(client.status()), client.status())
    check("delete", client.delete("gw/a") is True and client.delete("gw/none") is False)
    check("delete prefix", client.delete_prefix("gw/") and client.get_prefix("gw/") == [])


async def grpc(host, port):
    async with aetcd.Client(host=host, port=port) as client:
        await client.put(b"ae/a", b"1")
        await client.put(b"ae/b", b"2")
        first = await client.get(b"ae/a")
        check("ae get", first.value == b"1", first)
        check("ae get nothing", await client.get(b"ae/none") is None)
        keys = [pair.key for pair in await client.get_prefix(b"ae/")]
        check("ae prefix", keys == [b"ae/a", b"ae/b"], keys)
        check("ae replace", await client.replace(b"ae/a", b"1", b"3"))
        check("ae replace another", not await client.replace(b"ae/a", b"1", b"4"))
        of = client.transactions
        done, _ = await client.transaction(
            compare=[of.value(b"ae/a") == b"3", of.version(b"ae/a") > 0],
            success=[of.put(b"ae/t", b"x"), of.get(b"ae/t")],
            failure=[of.delete(b"ae/a")],
        )
        check("ae transaction", done is True and (await client.get(b"ae/t")).value == b"x")
        lease = await client.lease(20)
        await client.put(b"ae/l", b"x", lease=lease)
        check("ae lease", 0 < await lease.remaining_ttl() <= 20)
        check("ae lease keys", list(await lease.keys()) == [b"ae/l"])
        await lease.refresh()
        await lease.revoke()
        check("ae revoke", await client.get(b"ae/l") is None)
        watch = await client.watch(b"ae/w")
        await client.put(b"ae/w", b"x")
        async for event in watch:
            check("ae watch", (event.kv.key, event.kv.value) == (b"ae/w", b"x"), event)
            break
        await watch.cancel()
        lock = client.lock(b"ae-lock", ttl=10)
        check("ae lock", await lock.acquire(timeout=5) and await lock.is_acquired())
        check("ae unlock", await lock.release())
        status = await client.status()
        check("ae status", status.version and status.leader, status)
        await client.compact(first.mod_revision)
        await client.defragment()
        check("ae delete", await client.delete(b"ae/a"))
        await client.delete_prefix(b"ae/")
        check("ae delete prefix", await client.get(b"ae/b") is None)


if __name__ == "__main__":
    address = sys.argv[1], int(sys.argv[2])
    gateway(*address)
    asyncio.run(asyncio.wait_for(grpc(*address), 60))
    sys.exit(1 if failed else 0)
