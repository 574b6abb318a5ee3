//go:build race

package backfill_test

// underRace says that the race detector makes everything several times slower.
const underRace = true

// slower is by how much tests have to be more patient for that.
const slower = 4
