// Package zoo holds hosts of the sandbox that misbehave, each with what a reader that
// keeps the rules should make of it. A [Behaviour] has a name and a constructor, and is
// assigned to a repo or to a host ([sandbox.World.Assign], [sandbox.World.AssignHost])
// or, by a seed, to a share of all repos ([Scatter]). [Expected] is what a repo is then
// to be settled as.
//
// It is for tests alone: the program does not link it.
package zoo
