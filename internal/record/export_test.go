package record

// Vain is how many bytes were hashed in vain.
func (v *Verifier) Vain() int { return v.vain }
