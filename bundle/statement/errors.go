package statement

import "github.com/ententehq/entente/bundle/internal/refusal"

// Refusals of statements.
var (
	ErrInvalid   error = refusal.New("bad_statement", "it is not a statement on a bundle")
	ErrSigner    error = refusal.New("statement_signer", "the statement is signed by a key that may not sign it")
	ErrSignature error = refusal.New("statement_signature", "the statement's signature does not verify")
	ErrLink      error = refusal.New("statement_link", "the statement does not continue the one before")
)
