import assert from 'node:assert/strict'
import { StoreUnavailableError } from '../../sidecar/pair/store.ts'
import { Channel, ChannelClosedError } from '../../sidecar/workers/channel.ts'
import { suite } from '../support/suite.ts'
import { ends } from './ends.ts'

const test = suite('workers/channel')

const FAILURES = {
  away: new StoreUnavailableError('Redis is away'),
  range: new RangeError('too far'),
  number: 7,
}

type Asked = {
  add(a: number, b: number): number
  later(): Promise<string>
  fail(how: keyof typeof FAILURES): never
  never(): Promise<void>
}

function world() {
  const { here, there, sent } = ends()
  let answer: (text: string) => void = () => {}
  const verbs: Asked = {
    add: (a, b) => a + b,
    later: () =>
      new Promise((resolve) => {
        answer = resolve
      }),
    fail: (how) => {
      throw FAILURES[how]
    },
    never: () => new Promise(() => {}),
  }
  new Channel(there, verbs)
  return { channel: new Channel<Asked>(here), answer: (text: string) => answer(text), sent }
}

test('answers each that asks, in whatever order the answers come', async () => {
  const { channel, answer } = world()
  const later = channel.ask('later')
  assert.equal(await channel.ask('add', 2, 3), 5)
  answer('at last')
  assert.equal(await later, 'at last')
})

test('what is asked and answered in one turn goes as one message each way', async () => {
  const { channel, sent } = world()
  const sums = Array.from({ length: 50 }, (_, i) => channel.ask('add', i, i))
  assert.deepEqual(
    await Promise.all(sums),
    sums.map((_, i) => 2 * i),
  )
  assert.equal(sent.length, 2)
})

test('an error is one for who asked, and a store that is away stays that', async () => {
  const { channel } = world()
  const away = channel.ask('fail', 'away')
  await assert.rejects(
    away,
    (error) => error instanceof StoreUnavailableError && /Redis is away/.test(error.message),
  )
  await assert.rejects(channel.ask('fail', 'range'), /too far/)
  await assert.rejects(channel.ask('fail', 'number'), /a thrown number/)
})

test('what is not answered when the other process ends fails', async () => {
  const { channel } = world()
  const asked = [channel.ask('never'), channel.ask('add', 1, 1)]
  channel.close()
  for (const one of asked) await assert.rejects(one, (error) => error instanceof ChannelClosedError)
})

test.run()
