// Adds PDS hosts to the tables of a relay that is not running:
//   node hosts.mjs <relay.sqlite> <host:port>...
// The relay refuses to crawl loopback addresses that it is told of in any other way.
import Database from 'better-sqlite3'

const [file, ...hosts] = process.argv.slice(2)
const db = new Database(file)
const insert = db.prepare(`
  INSERT INTO host (hostname, no_ssl, trusted, status, account_limit, last_seq, account_count, created_at, updated_at)
  VALUES (?, 1, 1, 'active', 1000000, -1, 0, datetime('now'), datetime('now'))`)
for (const host of hosts) insert.run(host)
db.close()
