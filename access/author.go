package access

import (
	"context"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/grant"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// adminSocket is how the author of a row is named that wrote it through an admin socket.
const adminSocket = "admin socket"

// Author returns the caller of the current call as the author of a row that counts only while its author may write it:
// see [GuardConfig.AuthorMay].
func Author(ctx context.Context) string {
	if c := CallerFrom(ctx); c.Kind() != Socket {
		return c.String()
	}
	return adminSocket
}

// ByAdminSocket reports whether an author wrote through an admin socket.
func ByAdminSocket(author string) bool { return strings.HasPrefix(author, adminSocket) }

// AuthorMay returns nil if the author of a row could make the call now that wrote it, by the grants in the state of a
// reader but without those that are passed, and otherwise a [Refusal]. An author that wrote through an admin
// socket always may.
func (c GuardConfig) AuthorMay(
	r raftstore.Reader, author, method string, request proto.Message, without ...grant.Grant,
) error {
	if ByAdminSocket(author) {
		return nil
	}
	id, err := spiffeid.FromString(author)
	if err != nil {
		return refuse(ReasonAnonymous, "%q is no caller of the API", author)
	}
	call := Call{Method: method, Rule: rules[method], Caller: SVIDCaller(id)}
	if call.Rule.Target != nil {
		call.Target = call.Rule.Target(request)
	}
	all, err := grant.Of(r, id)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(g grant.Grant) bool { return slices.Contains(without, g) })
	if call.Grants, call.Attested, err = c.counting(r, id, all); err != nil {
		return err
	}
	return Decide(call, c.world(r, func(id spiffeid.ID) ([]grant.Grant, error) { return grant.Of(r, id) }))
}

// dependents returns the effects of the revocation of a grant on what its holder wrote.
func (c GuardConfig) dependents(r raftstore.Reader, revoked grant.Grant) ([]*ententev1.Effect, error) {
	if c.Dependents == nil {
		return nil, nil
	}
	return c.Dependents(r, revoked)
}
