"""proxy.py LISTEN PORT HOST PORT DELAY: passes connections on, all bytes later by DELAY seconds."""

import asyncio
import sys


async def read(reader, queue, delay):
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await reader.read(65536)
        except OSError:
            data = b""
        await queue.put((loop.time() + delay, data))
        if not data:
            return


async def write(writer, queue):
    loop = asyncio.get_running_loop()
    try:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                return
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main():
    listen, port, host, to_port, delay = sys.argv[1:]

    async def passed_on(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(to_port))
        except OSError:
            writer.close()
            return
        there, back = asyncio.Queue(256), asyncio.Queue(256)
        tasks = [
            asyncio.ensure_future(task)
            for task in (
                read(reader, there, float(delay)),
                write(far_writer, there),
                read(far_reader, back, float(delay)),
                write(writer, back),
            )
        ]
        # Either direction ends both, as the end of a connection does.
        await asyncio.wait((tasks[1], tasks[3]), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(passed_on, listen, int(port))
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
