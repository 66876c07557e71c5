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

/** The contrast of every text that is seen with what is behind it, as WCAG 2.2 computes it; filters are left out. */
export function contrasts(page: Page): Promise<{ text: string; contrast: number }[]> {
  return page.locator('body').evaluate((body) => {
    const { getComputedStyle } = body.ownerDocument.defaultView
    const channels = (colour: string) => colour.match(/[\d.]+/g)!.map(Number)
    const luminance = (colour: string) => {
      const [r, g, b] = channels(colour).map((channel) => {
        const c = channel / 255
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
      })
      return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!
    }
    const behind = (element: typeof body): string => {
      const { backgroundColor } = getComputedStyle(element)
      return channels(backgroundColor)[3] === 0 ? behind(element.parentElement) : backgroundColor
    }
    return [...body.querySelectorAll('*')]
      .filter((element) =>
        [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== ''),
      )
      .filter(
        (element) => element.nodeName !== 'SCRIPT' && element.checkVisibility({ visibilityProperty: true }),
      )
      .map((element) => {
        const pair = [luminance(getComputedStyle(element).color), luminance(behind(element))]
        const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)
        return { text: element.textContent, contrast }
      })
  })
}
