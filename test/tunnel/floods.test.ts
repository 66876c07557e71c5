/** Too much of everything: what it costs stays bounded, and the next call works. */
import assert from 'node:assert/strict'
import v8 from 'node:v8'
import vm from 'node:vm'
import type { Frame } from '../pair/tunnel-frames.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { data, READY, request, response } from '../support/tunnel-end.ts'
import { isDead, worldSuite } from './world.ts'

const test = worldSuite('tunnel: floods')

v8.setFlagsFromString('--expose-gc')
const collectGarbage = vm.runInNewContext('gc')

const MIB = 1024 * 1024
const POST = { method: 'POST', end: false }

/** What all buffers and objects take, once those that nobody has are gone. */
async function memory(): Promise<number> {
  collectGarbage()
  await new Promise(setImmediate)
  collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** Asserts that something takes no more memory than so many bytes when it is there. */
async function takesAtMost(bytes: number, act: () => unknown): Promise<void> {
  const before = await memory()
  await act()
  const more = (await memory()) - before
  assert.ok(more <= bytes, `${more} bytes more`)
}

test('many pings at once are answered once', async (world) => {
  const { end } = world.responder()
  await end.until('ready')
  const { sent } = world.records
  const pings = Array.from(
    { length: 1_000 },
    (_, i): Frame => ({ type: 'ping', payload: String(i).padStart(8, '0') }),
  )
  for (let i = 0; i < 100; i++) end.send(...pings)
  assert.equal((await end.until('pong')).length, 1)
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate)
  assert.equal(world.records.sent, sent + 1)
})

test('1 MiB of frames that the other end does not take kills', async (world) => {
  const side = world.responder()
  await side.end.settled()
  side.stop()
  const bad = Array.from({ length: 1_000 }, (_, i) => i)
  let number = 0
  const flood = () => side.end.send(...bad.map(() => request(++number, { fields: ['a b', ''] })))
  while (number * 9 < MIB - 9_100) flood()
  assert.equal(side.tunnel.isOver, false)
  flood()
  assert.equal(side.tunnel.isOver, true)
  side.go()
  // What was sealed before it died has been taken.
  isDead(side, await side.end.end(), /does not take what it is told/)
})

test('a tunnel that dies in the middle of a record begins none of its calls', async (world) => {
  const side = world.responder()
  await side.end.settled()
  side.stop()
  const flood = []
  for (let i = 1; i <= 2_900; i++) flood.push(request(i, { fields: ['a b', ''] }))
  let number = flood.length
  side.end.send(...flood)
  while (!side.tunnel.isOver) {
    const some = []
    for (let i = 0; i < 1_000; i++) some.push(request(++number, { fields: ['a b', ''] }))
    some.push(request(++number))
    const handled = side.handled.length
    side.end.send(...some)
    if (side.tunnel.isOver) assert.equal(side.handled.length, handled)
  }
  assert.equal(side.open.size, 0)
  side.go()
})

test('heads that wait do not count as what the other end does not take', async (world) => {
  const { end, handled, stop, go, tunnel } = world.responder()
  await end.settled()
  stop()
  for (let i = 1; i <= 100; i++) {
    end.send(request(i))
    handled.at(-1)!.answer({ fields: ['x-large', 'x'.repeat(30_000)] })
  }
  await new Promise(setImmediate)
  go()
  for (let i = 1; i <= 100; i++) await end.until('response')
  assert.equal(tunnel.isOver, false)
})

test('what waits is counted as it goes out: a tunnel may be busy for ever', async (world) => {
  const { end, handled, tunnel } = world.responder({ ready: false })
  end.send({ ...READY, calls: 256 })
  let number = 0
  const next = () => {
    end.send(request(++number))
    handled.at(-1)!.call.inform({ status: 103, fields: ['x-large', 'x'.repeat(40_000)] })
    handled.at(-1)!.answer({ fields: ['x-large', 'x'.repeat(40_000)] })
  }
  for (let i = 0; i < 8; i++) next()
  for (let i = 0; i < 100; i++) {
    await end.until('response')
    next()
  }
  assert.equal(tunnel.isOver, false)
})

test('ten thousand calls begun and reset at once: a bounded number reaches the handler until it lets go', async (world) => {
  const { end, handled, tunnel, open } = world.responder()
  await end.settled()
  await takesAtMost(16 * MIB, () => {
    for (let i = 1; i <= 10_000; ) {
      const frames = []
      for (const stop = i + 100; i < stop; i++) frames.push(request(i, POST), data(i, 'x'.repeat(100)))
      end.send(...frames)
      end.send(
        ...Array.from({ length: 100 }, (_, j) => ({ type: 'reset', call: i - 100 + j, code: 0 }) as const),
      )
    }
  })
  assert.equal(tunnel.isOver, false)
  assert.equal(handled.length, 256)
  assert.ok(handled.every(({ gone }) => gone))
  assert.equal(open.size, 0)
  const refused = (await end.settled()).filter((frame) => frame.type === 'reset')
  assert.equal(refused.length, 10_000 - 256)
  assert.ok(refused.every((frame) => frame.code === 4))
  for (const one of handled) one.answer()
  await end.settled()
  end.send(request(10_001))
  assert.equal(handled.length, 257)
  handled[256]!.answer({ status: 204 })
  assert.deepEqual((await end.until('response')).pop(), response(10_001, { status: 204 }))
})

test('a body in pieces of a byte costs little more than its bytes', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1, POST))
  const piece = data(1, 'x')
  await takesAtMost(MIB, () => {
    for (let sent = 0; sent < 65_536; sent += 256) end.send(...Array.from({ length: 256 }, () => piece))
  })
  end.send(data(1, '', true))
  assert.equal((await readAll(handled[0]!.request.body)).length, 65_536)
})

test('a piece of a byte does not keep the record that it came in', async (world) => {
  const { end, handled } = world.responder()
  const pad = Buffer.alloc(200_000)
  pad[0] = 0x1f
  pad.writeUIntBE(pad.length - 8, 5, 3)
  end.send(request(1, POST))
  await takesAtMost(MIB, () => {
    for (let i = 0; i < 300; i++) end.send(data(1, 'xy'.repeat(1 + (i % 90))), pad)
  })
  assert.equal(handled.length, 1)
})

test('256 bodies that nobody reads cost what was granted, and no tunnel', async (world) => {
  const { end, handled, tunnel } = world.responder()
  await takesAtMost(20 * MIB, () => {
    for (let call = 1; call <= 256; call++) end.send(request(call, POST), data(call, 'x'.repeat(65_536)))
  })
  assert.equal(handled.length, 256)
  end.send(request(257))
  assert.equal(tunnel.isOver, false)
  const [refused] = await end.until('reset').then((frames) => frames.slice(-1))
  assert.deepEqual(refused, { type: 'reset', call: 257, code: 4 })
})

test('nothing is sealed for who takes nothing', async (world) => {
  const { end, handled, stop, go } = world.responder({ ready: false })
  end.send({ ...READY, credit: 2 ** 30 }, request(1))
  await end.until('ready')
  stop()
  const before = world.records.sent
  handled[0]!.answer({ body: new FedBody().push(Buffer.alloc(8 * MIB)).end() })
  for (let i = 0; i < 10; i++) await new Promise(setImmediate)
  // One may have been asked for before.
  assert.ok(world.records.sent - before <= 1)
  go()
  let bytes = 0
  while (bytes < 8 * MIB) bytes += ((await end.until('data')).pop() as { piece: string }).piece.length
})

test.run()
