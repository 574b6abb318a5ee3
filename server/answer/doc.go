// Package answer is how the server reads requests and writes answers, whoever they are for.
//
// An endpoint computes a Reply and never sees the ResponseWriter, so it can neither answer
// twice nor half-answer; Answers does the writing. Errors become answers in one place,
// errors.go, in the shape that the path's audience expects. Lines of JSON are written while
// they are made, by lines.go, to clients that keep up. What all answers under way take
// together is bounded.
package answer
