"""As many GETs of one URL as asked for, each on a connection of its own; prints the seconds and the MB."""

import asyncio
import sys
import time

import aiohttp
from peak import megabytes

AT_ONCE = 100


async def main(url: str, count: int) -> float:
    connector = aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        turn = asyncio.Semaphore(AT_ONCE)

        async def look(number: int) -> int:
            async with turn, session.get(f"{url}?{number}", timeout=aiohttp.ClientTimeout(total=2)) as response:
                await response.read()
                return response.status

        began = time.perf_counter()
        found = await asyncio.gather(*map(look, range(count)))
        took = time.perf_counter() - began
    if set(found) != {200}:
        sys.exit(f"answered {set(found)}")
    return took


print(asyncio.run(main(sys.argv[1], int(sys.argv[2]))), megabytes())
