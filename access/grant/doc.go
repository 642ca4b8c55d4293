// Package grant has the grants: who has which role, where, and which services belong to whom.
//
// A [Grant] is a value. One that exists is valid: [Parse] checks it, in whatever message it arrives. What it covers is
// decided by its pure methods.
//
// Grants are rows of a replicated table. Each names the member on which it was created or that restored it from a
// snapshot, and the leader refuses one that another member sends: those of a compromised member end with it
// ([RemoveMember]). A revocation is a row too, so
// that no restore brings a revoked grant back ([SurviveRestore]).
//
// A grant of the role discovery can name services, whose owner its caller then is ([OwnersOf]). A service that had
// owners and has none any more is reserved. It does not become open by itself, but by [Release].
package grant
