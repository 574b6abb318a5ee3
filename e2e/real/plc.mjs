// Runs a PLC directory, kept in memory, on the port in PLC_PORT.
import { createServer } from 'node:http'
import plc from '@did-plc/server'

const server = plc.PlcServer.create({ db: plc.Database.mock() })
// Not server.start(): that listens on every address of the machine.
createServer(server.app).listen(Number(process.env.PLC_PORT), '127.0.0.1')

process.on('SIGTERM', () => process.exit(0))
process.on('SIGINT', () => process.exit(0))
