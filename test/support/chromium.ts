/** A real Chromium, without a window. */
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { chromiumBinary } from './debian.ts'

/** Starts it; whoever did must close it. */
export function startChromium(): Promise<Browser> {
  // Chromium's own sandbox cannot be had by root.
  return chromium.launch({ executablePath: chromiumBinary(), chromiumSandbox: false })
}

export interface Opened {
  page: Page
  /** URLs that it has asked for */
  requests: string[]
  /** what it complained about, such as a breach of its Content-Security-Policy */
  complaints: string[]
}

/** Opens a page in a profile of its own. */
export async function open(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<Opened> {
  const context = await browser.newContext(options)
  const page = await context.newPage()
  const requests: string[] = []
  const complaints: string[] = []
  page.on('request', (request) => requests.push(request.url()))
  page.on('pageerror', ({ message }) => complaints.push(message))
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text())
  })
  await page.goto(url)
  return { page, requests, complaints }
}
