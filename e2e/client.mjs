// Holds the same conversations with the index and with a PDS through Bluesky's
// own client, unchanged, and compares what comes of them:
//
//   node client.mjs <plan.json>
//
// The plan says which repos there are and where. Every difference is a line on
// standard output; the last line counts what was compared, so that a comparison
// of nothing cannot pass for a good one.
import { readFileSync } from 'node:fs'
import { inspect, isDeepStrictEqual } from 'node:util'
import { AtpAgent, ComAtprotoRepoGetRecord, XRPCError } from '@atproto/api'

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const index = new AtpAgent({ service: plan.index })
const counts = { pages: 0, records: 0, errors: 0, refusals: 0, origins: 0 }
let differences = 0

const GET_RECORD = 'getRecord'
const LIST_RECORDS = 'listRecords'
const POSTS = 'app.bsky.feed.post'
const MOST_PAGES = 1000 // a cursor that leads nowhere ends here
const MOST_SHOWN = 300 // characters of a value
const BEFORE = 60 // of them before the place where two values differ

const show = (value) => inspect(value, { depth: Infinity, maxStringLength: 1000, compact: true, breakLength: Infinity })

// differ shows two values from where they part.
const differ = (what, got, want) => {
  differences++
  const [g, w] = [show(got), show(want)]
  let at = 0
  while (at < g.length && g[at] === w[at]) at++
  const cut = (text) => text.slice(Math.max(0, at - BEFORE)).slice(0, MOST_SHOWN)
  console.log(`${what}: the index says ${cut(g)}, want ${cut(w)}`)
}

const same = (what, got, want) => {
  if (!isDeepStrictEqual(got, want)) differ(what, got, want)
}

const rkeyOf = (uri) => uri.slice(uri.lastIndexOf('/') + 1)

// pagesOf follows cursors to the end. The PDS gives a cursor with its last
// records too and ends with an empty page; which of the two a server does is
// its own choice, so the empty page is left out, and the last cursor with it.
const pagesOf = async (agent, params) => {
  const pages = []
  let cursor
  do {
    const { data } = await agent.com.atproto.repo.listRecords({ ...params, cursor })
    if (data.records.length > 0) pages.push(data)
    cursor = data.cursor
  } while (cursor && pages.length < MOST_PAGES)
  if (pages.length > 0) delete pages.at(-1).cursor
  return pages
}

// compareLists reads a collection in both directions and in pages of all sizes.
const compareLists = async (repo, pds, collection, count) => {
  const limits = count > 100 ? [undefined, 37, 99, 100] : [undefined, 1, 2, 7, 50, 100]
  let newestFirst
  for (const limit of limits) {
    for (const reverse of [undefined, false, true]) {
      const params = { repo: repo.did, collection, limit, reverse }
      const what = `listRecords of ${repo.name} ${show({ collection, limit, reverse })}`
      const want = await pagesOf(pds, params)
      const got = await pagesOf(index, params)
      if (got.length !== want.length) differ(`${what}, pages`, got.length, want.length)
      for (const [i, page] of want.entries()) same(`${what}, page ${i}`, got[i], page)

      const records = got.flatMap((page) => page.records)
      newestFirst ??= records
      same(`${what}, records`, records.length, count)
      same(`${what}, order`, reverse ? records.toReversed() : records, newestFirst)
      counts.pages += got.length
    }
  }
  return newestFirst
}

// compareRecords reads records alone, by their newest version and by its CID.
const compareRecords = async (repo, pds, collection, records) => {
  // The first and the last are enough of a long list.
  const some = records.length > 20 ? [...records.slice(0, 5), ...records.slice(-5)] : records
  for (const { uri, cid } of some) {
    const params = { repo: repo.did, collection, rkey: rkeyOf(uri) }
    const want = await pds.com.atproto.repo.getRecord(params)
    same(`PDS's getRecord of ${uri}`, [want.data.uri, want.data.cid], [uri, cid])
    for (const p of [params, { ...params, cid }]) {
      const got = await index.com.atproto.repo.getRecord(p)
      same(`getRecord of ${uri} ${show(p)}`, got.data, want.data)
      same(`getRecord of ${uri}, content-type`, got.headers['content-type']?.split(';')[0], 'application/json')
      counts.records++
    }
  }
}

// comparePosts reads by the methods that the client has for a lexicon it knows.
const comparePosts = async (repo, pds) => {
  const of = (agent) => agent.app.bsky.feed.post
  const params = { repo: repo.did, limit: 100 }
  const want = await of(pds).list(params)
  const got = await of(index).list(params)
  same(`post.list of ${repo.name}`, got.records, want.records)
  for (const { uri } of want.records.slice(0, 3)) {
    const p = { repo: repo.did, rkey: rkeyOf(uri) }
    same(`post.get of ${uri}`, await of(index).get(p), await of(pds).get(p))
    same(`getPost of ${uri}`, await index.getPost(p), await pds.getPost(p))
    counts.records++
  }
}

// outcome is how a call ends for a program that branches on it.
const outcome = async (call) => {
  try {
    const { data } = await call()
    return { data }
  } catch (err) {
    if (!(err instanceof XRPCError)) throw err
    return { class: err.constructor.name, error: err.error, status: err.status, message: err.message }
  }
}

// compareErrors makes mistakes at both. Where the index is meant to answer
// otherwise than the PDS, the mistake says how and why.
const compareErrors = async (repo, pds, collection, records) => {
  const invalid = { class: 'XRPCError', error: 'InvalidRequest', status: 400 }
  const noRecord = { class: ComAtprotoRepoGetRecord.RecordNotFoundError.name, error: 'RecordNotFound', status: 400 }
  const [one, two] = records
  const known = { repo: repo.did, collection, rkey: rkeyOf(one.uri) }
  const list = { repo: repo.did, collection }
  const nobody = 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa'
  const mistakes = [
    ['unknown record', GET_RECORD, { ...known, rkey: 'nothing-here' }, noRecord],
    ['unknown collection', GET_RECORD, { ...known, collection: 'com.example.e2e.nothing' }, noRecord],
    ['CID of another record', GET_RECORD, { ...known, cid: two.cid }, noRecord],
    // A CID by the syntax of the lexicon, which nothing decodes: the index has no such record.
    ['CID that is none', GET_RECORD, { ...known, cid: 'nonsense' }, noRecord, invalid],
    ['CID with spaces', GET_RECORD, { ...known, cid: 'not a CID' }, invalid],
    ['no rkey', GET_RECORD, { ...known, rkey: undefined }, invalid],
    ['no repo', GET_RECORD, { ...known, repo: undefined }, invalid],
    ['no collection', GET_RECORD, { ...known, collection: undefined }, invalid],
    ['repo that is neither DID nor handle', GET_RECORD, { ...known, repo: 'no one' }, invalid],
    ['collection of two segments', GET_RECORD, { ...known, collection: 'com.example' }, invalid],
    ['rkey with a space', GET_RECORD, { ...known, rkey: 'a b' }, invalid],
    ['rkey with a slash', GET_RECORD, { ...known, rkey: 'a/b' }, invalid],
    ['rkey ..', GET_RECORD, { ...known, rkey: '..' }, invalid],
    ['rkey of 513 characters', GET_RECORD, { ...known, rkey: 'k'.repeat(513) }, invalid],
    // A PDS asks its appview for the repos of others and says what that says,
    // or, as here, that it has none. The lexicon's own error is what fits.
    ['unknown repo', GET_RECORD, { ...known, repo: nobody }, noRecord, invalid],
    ['unknown repo', LIST_RECORDS, { ...list, repo: nobody }, invalid],
    ['limit 0', LIST_RECORDS, { ...list, limit: 0 }, invalid],
    ['limit 101', LIST_RECORDS, { ...list, limit: 101 }, invalid],
    ['limit -1', LIST_RECORDS, { ...list, limit: -1 }, invalid],
    ['no repo', LIST_RECORDS, { ...list, repo: undefined }, invalid],
    ['no collection', LIST_RECORDS, { ...list, collection: undefined }, invalid],
    ['repo that is neither DID nor handle', LIST_RECORDS, { ...list, repo: 'no one' }, invalid],
    ['collection of two segments', LIST_RECORDS, { ...list, collection: 'com.example' }, invalid],
    ['collection with a trailing dot', LIST_RECORDS, { ...list, collection: 'com.example.e2e.' }, invalid],
  ]
  for (const [what, method, params, atIndex, atPDS = atIndex] of mistakes) {
    for (const [who, agent, want] of [['index', index, atIndex], ['PDS', pds, atPDS]]) {
      const { message, ...got } = await outcome(() => agent.com.atproto.repo[method](params))
      same(`${method}, ${what}, asked of the ${who}`, got, want)
      if (!message) differ(`${method}, ${what}, message of the ${who}`, message, 'a sentence')
    }
    counts.errors++
  }

  // No mistakes, though they look like some: an empty list, parameters without a
  // value, and cursors, which are a place in the order whatever they say.
  for (const params of [
    { ...list, collection: 'com.example.e2e.nothing' },
    ...['', '0', 'a/b', 'é', 'zzz', rkeyOf(two.uri)].flatMap((cursor) => [{ ...list, cursor }, { ...list, cursor, reverse: true }]),
  ]) {
    const rest = async (agent) => (await agent.com.atproto.repo.listRecords(params)).data.records
    same(`listRecords ${show(params)}`, await rest(index), await rest(pds))
  }
  const anyVersion = async (agent) => (await agent.com.atproto.repo.getRecord({ ...known, cid: '' })).data
  same('getRecord with an empty cid', await anyVersion(index), await anyVersion(pds))

  // The index looks no handles up and says so.
  for (const [method, params] of [[GET_RECORD, known], [LIST_RECORDS, list]]) {
    const { message, ...got } = await outcome(() => index.com.atproto.repo[method]({ ...params, repo: repo.handle }))
    same(`${method}, handle as repo`, got, invalid)
    if (!/handle/.test(message)) differ(`${method}, handle as repo, message`, message, 'something about handles')
    counts.errors++
  }

  const elsewhere = await outcome(() => index.com.atproto.repo.describeRepo({ repo: repo.did }))
  same('a method that the index does not have', [elsewhere.error, elsewhere.status], ['MethodNotImplemented', 501])
}

// compareRefusals asks for accounts that are not served. The PDS has one error
// for all of them; the index tells them apart, as the PDS's getRepo does.
const compareRefusals = async ({ name, did, collection, rkey, error, pds: service }) => {
  const pds = new AtpAgent({ service })
  const want = { class: 'XRPCError', error, status: 400 }
  for (const [method, params] of [[GET_RECORD, { repo: did, collection, rkey }], [LIST_RECORDS, { repo: did, collection }]]) {
    const what = `${method} of ${name}`
    const { message, ...got } = await outcome(() => index.com.atproto.repo[method](params))
    same(what, got, want)
    if (!message?.includes(did)) differ(`${what}, message`, message, `something about ${did}`)
    const theirs = await outcome(() => pds.com.atproto.repo[method](params))
    same(`${what}, asked of the PDS`, theirs.error, 'InvalidRequest')
    counts.refusals++
  }
}

// compareOrigins plays the browser, which asks before it lets a page send the
// client's headers, and hides every answer that is not marked as open.
const compareOrigins = async (repo, collection) => {
  const origin = 'https://app.example'
  const good = new URLSearchParams({ repo: repo.did, collection, limit: '2' })
  const bad = new URLSearchParams({ repo: repo.did, collection, limit: '0' })
  const lists = '/xrpc/com.atproto.repo.listRecords?'
  const gets = '/xrpc/com.atproto.repo.getRecord?'
  for (const path of [lists + good, lists + bad, gets, '/xrpc/com.example.unknown']) {
    const of = async (service) => {
      const res = await fetch(service + path, { headers: { origin, 'atproto-accept-labelers': 'did:plc:x' } })
      await res.arrayBuffer()
      return res.headers.get('access-control-allow-origin')
    }
    same(`origins that may read ${path}`, await of(plan.index), await of(repo.pds))
    counts.origins++
  }
  for (const path of [lists + good, gets + good, '/xrpc/com.example.unknown']) {
    const wanted = 'atproto-accept-labelers' // AtpAgent sends it with everything
    const of = async (service) => {
      const res = await fetch(service + path, {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'GET', 'access-control-request-headers': wanted },
      })
      const body = await res.text()
      const list = (name) => (res.headers.get(name) ?? '').toLowerCase().split(',').map((s) => s.trim())
      const allows = (name, value) => list(name).some((s) => s === '*' || s === value)
      return {
        status: res.status,
        body,
        origin: res.headers.get('access-control-allow-origin'),
        get: allows('access-control-allow-methods', 'get'),
        header: allows('access-control-allow-headers', wanted),
      }
    }
    const got = await of(plan.index)
    same(`preflight of ${path}`, got, { status: 204, body: '', origin: '*', get: true, header: true })
    same(`preflight of ${path}`, got, await of(repo.pds))
    counts.origins++
  }
}

// attempt keeps one comparison that cannot be finished from hiding the others.
const attempt = async (what, compare) => {
  try {
    return await compare()
  } catch (err) {
    differ(what, err, 'an answer')
  }
}

for (const repo of plan.repos) {
  const pds = new AtpAgent({ service: repo.pds })
  for (const [collection, count] of Object.entries(repo.counts)) {
    const what = `${collection} of ${repo.name}`
    const records = await attempt(`lists of ${what}`, () => compareLists(repo, pds, collection, count))
    if (!records) continue
    await attempt(`records of ${what}`, () => compareRecords(repo, pds, collection, records))
    if (collection === POSTS) await attempt(`posts of ${what}`, () => comparePosts(repo, pds))
    if (repo.mistakes === collection) {
      await attempt(`errors about ${what}`, () => compareErrors(repo, pds, collection, records))
      await attempt(`origins for ${what}`, () => compareOrigins(repo, collection))
    }
  }
}
for (const refused of plan.refused ?? []) await attempt(`refusal of ${refused.name}`, () => compareRefusals(refused))

console.log(JSON.stringify({ differences, ...counts }))
