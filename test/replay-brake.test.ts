import assert from 'node:assert/strict'
import { ReplayBrake } from '../sidecar/replay-brake.ts'
import { FakeClock } from './pair/fakes.ts'
import { suite } from './support/suite.ts'

const test = suite('replay-brake')

/** Of so many replays, how many may be answered before any timer runs. */
async function atOnce(brake: ReplayBrake, count: number): Promise<number> {
  let answered = 0
  for (let i = 0; i < count; i++) brake.take().then(() => answered++)
  await new Promise(process.nextTick)
  return answered
}

test('answers 100 replays in any second at once', async () => {
  const clock = new FakeClock()
  const brake = new ReplayBrake(clock.now)
  assert.equal(await atOnce(brake, 150), 100)
  clock.advance(999)
  assert.equal(await atOnce(brake, 10), 0)
  clock.advance(1)
  assert.equal(await atOnce(brake, 150), 100)
})

test('lets the others wait, and then answers them', async () => {
  const brake = new ReplayBrake(new FakeClock().now)
  await atOnce(brake, 100)
  const keep = setInterval(() => {}, 1000) // a wait alone keeps no process alive
  await brake.take()
  clearInterval(keep)
})

test('lets no more than 4,000 wait', async () => {
  const brake = new ReplayBrake(new FakeClock().now)
  assert.equal(await atOnce(brake, 4200), 200)
})

test.run()
