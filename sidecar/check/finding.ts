/** One thing that a check found. */
export interface Finding {
  /** `ok` works; `warn` works, but is hardly meant or does harm one day; `FAIL` does not work; `--` is no fault */
  mark: 'ok' | 'warn' | 'FAIL' | '--'
  /** what is so, and why that matters, in one sentence; never with anything secret */
  what: string
  /** what to do about it */
  advice?: string
}

export function ok(what: string): Finding {
  return { mark: 'ok', what }
}

export function warn(what: string, advice: string): Finding {
  return { mark: 'warn', what, advice }
}

export function fail(what: string, advice?: string): Finding {
  return { mark: 'FAIL', what, ...(advice === undefined ? {} : { advice }) }
}

export function note(what: string): Finding {
  return { mark: '--', what }
}
