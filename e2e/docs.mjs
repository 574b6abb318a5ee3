// The three calls of the admin API as its documentation writes them. The test
// runs this file under Node against the built program and reads what it prints.
const BASE = process.env.APPVIEW_URL ?? 'http://127.0.0.1:3000'
const TOKEN = process.env.APPVIEW_KEY // hv_...
const headers = { Authorization: `Bearer ${TOKEN}` }

// Create a backfill job
const create = async () => {
  const response = await fetch(`${BASE}/admin/backfill`, {
    method: 'POST',
    headers: {
      ...headers,
      'Content-Type': 'application/json',
    },
    body: JSON.stringify({
      collection: 'xyz.statusphere.status',
    }),
  })
  return { status: response.status, data: await response.json() }
}

// Cancel a backfill job
const cancel = async (jobId) => {
  const response = await fetch(`${BASE}/admin/backfill/${jobId}/cancel`, {
    method: 'POST',
    headers,
  })
  return { status: response.status, data: await response.json() }
}

// List backfill jobs
const list = async () => {
  const response = await fetch(`${BASE}/admin/backfill/status`, {
    headers,
  })
  return { status: response.status, data: await response.json() }
}

const created = await create()
const running = await list()
const cancelled = await cancel(created.data.id)
const after = await list()
console.log(JSON.stringify({ created, running, cancelled, after }))
