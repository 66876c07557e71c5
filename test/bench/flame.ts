/** A flame graph as one page of HTML, which needs nothing else: the outermost calls at the top. */

/** A function, called by way of its parents. */
export interface Frame {
  name: string
  /** file and line; empty for what is not JavaScript */
  place: string
  /** in it, and in it and all that it called */
  selfUs: number
  totalUs: number
  children: Frame[]
}

/** What is narrower is left out, as a share of all. */
const SHARE_MIN = 0.001

const STYLE = `
body { font: 12px system-ui, sans-serif; margin: 8px }
div { display: flex }
section { overflow: hidden; flex: none }
span { display: block; height: 16px; line-height: 16px; margin: 0 1px 1px 0; padding: 0 2px; overflow: hidden; white-space: nowrap; text-overflow: ellipsis }
.ours { background: #ffb74d } .node { background: #aed581 } .package { background: #90caf9 } .native { background: #e0e0e0 }
span:hover { outline: 1px solid #000; outline-offset: -1px }`

/** @param title what was profiled */
export function flameGraph(root: Frame, title: string): string {
  const key = ['ours', 'node', 'package', 'native'].map((kind) => `<span class="${kind}">${kind}</span>`)
  return `<!doctype html>
<meta charset="utf-8">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
<h1>${escapeHtml(title)}</h1>
<p>${(root.totalUs / 1e6).toFixed(2)} s; a function is as wide as its share of that, with all that it called below it.
Names are cut off: point at one for all of it.
<div>${key.join('')}</div>
${boxOf(root, root.totalUs, root.totalUs)}
`
}

function boxOf(frame: Frame, parentUs: number, allUs: number): string {
  const { name, place, selfUs, totalUs, children } = frame
  const percent = (us: number) => `${((100 * us) / allUs).toFixed(1)} %`
  const tip = escapeHtml(`${name} ${place}\n${percent(totalUs)}, ${percent(selfUs)} by itself`)
  const seen = merged(children)
    .filter((child) => child.totalUs >= SHARE_MIN * allUs)
    .map((child) => boxOf(child, totalUs, allUs))
  const width = ((100 * totalUs) / parentUs).toFixed(3)
  const label = `<span class="${kindOf(frame)}" title="${tip}">${escapeHtml(name)}</span>`
  return `<section style="width:${width}%">${label}<div>${seen.join('')}</div></section>`
}

/** Calls of one function from one place are one, and the widest come first. V8 tells them apart by what it compiled. */
function merged(frames: Frame[]): Frame[] {
  const byFunction = new Map<string, Frame>()
  for (const frame of frames) {
    const key = `${frame.name} ${frame.place}`
    const one = byFunction.get(key)
    byFunction.set(key, one ? added(one, frame) : frame)
  }
  return [...byFunction.values()].toSorted((a, b) => b.totalUs - a.totalUs)
}

function added(a: Frame, b: Frame): Frame {
  return {
    ...a,
    selfUs: a.selfUs + b.selfUs,
    totalUs: a.totalUs + b.totalUs,
    children: [...a.children, ...b.children],
  }
}

function kindOf({ place }: Frame): string {
  if (place === '') return 'native'
  if (place.startsWith('node:')) return 'node'
  return place.includes('node_modules/') ? 'package' : 'ours'
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
}
