// Keeps the status page fresh: asks for it again, and changes what has changed.
// A text stays the same node while it says the same, so focus, selection and screen readers are not disturbed.

const REFRESH_MS = 2000
const DEADLINE_MS = 4000

const live = document.getElementById('live')
const gone = document.getElementById('gone')
const age = document.getElementById('age')
const word = document.querySelector('#verdict h2')
let answeredAtMs = performance.now()
let timer

async function refresh() {
  try {
    const response = await fetch('/', { cache: 'no-store', signal: AbortSignal.timeout(DEADLINE_MS) })
    const next = new DOMParser().parseFromString(await response.text(), 'text/html')
    if (!response.ok || !next.getElementById('verdict')) throw new Error('something else answers')
    show(next)
    answeredAtMs = performance.now()
    tell(true)
  } catch {
    tell(false)
  }
  clearTimeout(timer)
  if (!document.hidden) timer = setTimeout(refresh, REFRESH_MS)
}

function show(next) {
  const focused = document.activeElement
  const { anchorNode, anchorOffset, focusNode, focusOffset } = getSelection()
  document.title = next.title
  update(document.querySelector('link[rel=icon]'), next.querySelector('link[rel=icon]'))
  for (const id of ['as-of', 'verdict', 'data']) update(document.getElementById(id), next.getElementById(id))
  if (document.activeElement !== focused && focused.isConnected) focused.focus({ preventScroll: true })
  if (anchorNode?.isConnected && focusNode?.isConnected)
    getSelection().setBaseAndExtent(
      anchorNode,
      Math.min(anchorOffset, lengthOf(anchorNode)),
      focusNode,
      Math.min(focusOffset, lengthOf(focusNode)),
    )
}

/** Makes a node like another one. */
function update(node, next) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== next.data) node.data = next.data
    return
  }
  for (const name of node.getAttributeNames()) if (!next.hasAttribute(name)) node.removeAttribute(name)
  for (const { name, value } of next.attributes)
    if (node.getAttribute(name) !== value) node.setAttribute(name, value)
  const nextKeys = new Set([...next.children].map(keyOf))
  for (const child of [...node.children]) if (!nextKeys.has(keyOf(child))) child.remove()
  const byKey = new Map([...node.children].map((child) => [keyOf(child), child]))
  let at = node.firstChild
  for (const child of next.childNodes) {
    const same = keyOf(child) ? byKey.get(keyOf(child)) : at
    if (!same || same.nodeName !== child.nodeName) {
      node.insertBefore(document.importNode(child, true), at)
      continue
    }
    if (same === at) at = at.nextSibling
    else node.insertBefore(same, at)
    update(same, child)
  }
  while (at) {
    const after = at.nextSibling
    at.remove()
    at = after
  }
}

/** What a row is known by. */
function keyOf(node) {
  return node.dataset?.key
}

function lengthOf(node) {
  return node.data?.length ?? node.childNodes.length
}

/** Says whether the sidecar still answers; what does not change is not said again. */
function tell(answers) {
  document.body.classList.toggle('stale', !answers)
  say(live, answers ? 'Live,' : 'Old,')
  say(gone, answers ? '' : 'No answer')
  if (answers) return
  const name = document.querySelector('h1').textContent
  const seconds = Math.round((performance.now() - answeredAtMs) / 1000)
  document.title = `No answer · ${name} · mte-sidecar`
  age.textContent = `The sidecar last answered ${seconds} s ago. Last known: ${word.textContent}. What stands below is as old.`
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) refresh()
})
tell(true)
timer = setTimeout(refresh, REFRESH_MS)
