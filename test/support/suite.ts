import { AssertionError } from 'node:assert'
import { suite as uvuSuite } from 'uvu'

/** A test that hangs is a failed test: this is when it is given up. */
const DEADLINE_MS = 60_000

/** The suite of a file: `test(sentence, body)` for each behaviour, and `test.run()` at the end of the file. */
export interface Suite {
  (sentence: string, body: () => unknown, deadlineMs?: number): void
  /** Runs before the tests; when it fails, each of them fails. */
  before(body: () => unknown, deadlineMs?: number): void
  /** Runs after the tests, whatever became of them; it counts as a test, and fails like one. */
  after(body: () => unknown, deadlineMs?: number): void
  run(): void
}

/** uvu's suite with what it lacks: a deadline a test, and set-up and tear-down that cannot fail in silence. */
export function suite(name: string): Suite {
  const inner = uvuSuite(name)
  const tearDowns: (() => Promise<void>)[] = []
  let ready = Promise.resolve()
  const test = ((sentence, body, deadlineMs = DEADLINE_MS) =>
    inner(sentence, async () => {
      await ready
      await withDeadline(body, deadlineMs)
    })) as Suite
  test.before = (body, deadlineMs = DEADLINE_MS) =>
    inner.before(async () => {
      ready = ready.then(() => withDeadline(body, deadlineMs))
      await ready.catch(() => {}) // uvu would drop the tests and pass: they report it instead
    })
  test.after = (body, deadlineMs = DEADLINE_MS) => {
    tearDowns.push(() => withDeadline(body, deadlineMs))
  }
  test.run = () => {
    for (const body of tearDowns) inner('tears down', body)
    inner.run()
  }
  return test
}

async function withDeadline(body: () => unknown, deadlineMs: number): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`not done after ${deadlineMs} ms`)), deadlineMs)
  try {
    await Promise.race([body(), promise])
  } catch (error) {
    throw error instanceof AssertionError ? plain(error) : error
  } finally {
    clearTimeout(timer)
  }
}

/** uvu compares what an AssertionError holds by itself, which throws for Buffers and ends the file in silence. */
function plain({ message, stack }: AssertionError): Error {
  return Object.assign(new Error(message), { stack })
}
