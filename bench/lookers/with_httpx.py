"""As many GETs of one URL as asked for, each on a connection of its own; prints the seconds and the MB."""

import asyncio
import sys
import time

import httpx
from peak import megabytes

AT_ONCE = 100


async def main(url: str, count: int) -> float:
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=2) as client:
        turn = asyncio.Semaphore(AT_ONCE)

        async def look(number: int) -> int:
            async with turn:
                return (await client.get(f"{url}?{number}")).status_code

        began = time.perf_counter()
        found = await asyncio.gather(*map(look, range(count)))
        took = time.perf_counter() - began
    if set(found) != {200}:
        sys.exit(f"answered {set(found)}")
    return took


print(asyncio.run(main(sys.argv[1], int(sys.argv[2]))), megabytes())
