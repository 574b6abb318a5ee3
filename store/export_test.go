package store

// StatusMoves is every way that a status may change.
func StatusMoves() map[Status][]Status { return statusMoves }
