// Package plan holds the rules for signing authorities. Its functions are pure: they take a [Situation] and return
// what has to be done, and they read neither a clock nor a store.
//
// An authority is prepared (published, not signing), active (signing), retiring (published until everything that it
// signed has expired) and then gone. An operator can end it sooner: a tainted authority stops signing and what it
// signed is renewed; a revoked authority also leaves the bundle.
//
// [Next] returns the actions of a member for its own authorities and the time of the next evaluation. [ForLost] and
// [ForRemoved] return the actions for authorities whose member cannot act. [TaintAuthority], [RevokeAuthority],
// [RevokeAnchor] and [ActivateAuthority] are the operator actions. [Anchors] decides which anchors of an upstream are
// in the bundle, and [Succession] whether the next root of a member is. [Wait] explains in one sentence what an
// authority waits for.
//
// The transcripts in authority/table/testdata/lifecycle show the rules at work; start reading there, then lifecycle.go.
package plan
