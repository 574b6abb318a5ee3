package record

const (
	maxNSID      = 317
	maxLabel     = 63
	minLabels    = 3
	maxRecordKey = 512
)

// ValidCollection reports whether s is a collection's name, as ParseCollection has it.
// It looks at each byte once: hosts can name a great many.
func ValidCollection[T ~string | ~[]byte](s T) bool {
	if len(s) > maxNSID {
		return false
	}
	labels, begin := 1, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if !validLabel(s[begin:i], labels == 1) {
				return false
			}
			labels, begin = labels+1, i+1
		case !isAlphanumeric(c) && c != '-':
			return false
		}
	}
	return labels >= minLabels && validName(s[begin:])
}

// validLabel reports whether s, of letters, digits and hyphens, is a part of a name's
// authority. Only the first may not begin with a digit.
func validLabel[T ~string | ~[]byte](s T, first bool) bool {
	n := len(s)
	if n == 0 || n > maxLabel || s[0] == '-' || s[n-1] == '-' || first && !isLetter(s[0]) {
		return false
	}
	for i := range n {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return false
		}
	}
	return true
}

// validName reports whether s, of letters, digits and hyphens, is a name's last part.
func validName[T ~string | ~[]byte](s T) bool {
	if len(s) == 0 || len(s) > maxLabel || !isLetter(s[0]) {
		return false
	}
	for i := range len(s) {
		if s[i] == '-' {
			return false
		}
	}
	return true
}

// ValidRecordKey reports whether s is a record key, as syntax.ParseRecordKey has it,
// and looks at each byte once.
func ValidRecordKey[T ~string | ~[]byte](s T) bool {
	n := len(s)
	if n == 0 || n > maxRecordKey || s[0] == '.' && (n == 1 || n == 2 && s[1] == '.') {
		return false
	}
	for i := range n {
		switch c := s[i]; c {
		case '_', '~', '.', ':', '-':
		default:
			if !isAlphanumeric(c) {
				return false
			}
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isAlphanumeric(c byte) bool { return isLetter(c) || '0' <= c && c <= '9' }
