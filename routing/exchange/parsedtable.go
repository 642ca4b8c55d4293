package exchange

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
)

// generational is implemented by rows whose generation moves with what clients set.
type generational interface {
	proto.Message
	GetGeneration() uint64
}

// parsedTable is a table whose rows, of type M, are parsed into P: that of the exports, or that of the imports.
type parsedTable[M generational, P any] struct {
	raftstore.Table[M]
	parse func(raftstore.Row[M]) (P, error)
}

// list returns all rows, in the order of their keys.
func (t parsedTable[M, P]) list(r raftstore.Reader) ([]P, error) {
	var list []P
	for row, err := range t.All(r, "") {
		if err != nil {
			return nil, err
		}
		p, err := t.parse(row)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// get returns a row, and whether there is one.
func (t parsedTable[M, P]) get(r raftstore.Reader, key string) (p P, found bool, err error) {
	row, found, err := t.Get(r, key)
	if err != nil || !found {
		return p, false, err
	}
	p, err = t.parse(row)
	return p, err == nil, err
}

// written returns a row that the caller has just written. kind names the row in the error if it is gone already.
func (t parsedTable[M, P]) written(r raftstore.Reader, key, kind string) (P, error) {
	p, found, err := t.get(r, key)
	if err == nil && !found {
		err = status.Errorf(codes.Aborted, "the %s was removed at the same time", kind)
	}
	return p, err
}

// removal is what to remove: the key of a row, the etag that it must have, unless that is empty, the error if there is
// no such row, and its name for the message of a refusal.
type removal struct {
	key, etag, name string
	missing         error
}

// remove deletes a row, and returns the revision of that, or the error of the removal if there is no such row.
func (t parsedTable[M, P]) remove(
	ctx context.Context, store *raftstore.Store, of removal,
) (raftstore.Revision, error) {
	revision, err := store.Update(ctx, t.deletion(of))
	return revision, raftstore.StatusError(err)
}

// tryRemove is remove in a dry run. It returns the row.
func (t parsedTable[M, P]) tryRemove(
	ctx context.Context, store *raftstore.Store, of removal,
) (p P, err error) {
	remove := t.deletion(of)
	err = raftstore.Try(ctx, store, func(tx *raftstore.Tx) error {
		if p, _, err = t.get(tx, of.key); err != nil {
			return err
		}
		return remove(tx)
	})
	return p, raftstore.StatusError(err)
}

func (t parsedTable[M, P]) deletion(of removal) func(*raftstore.Tx) error {
	return func(tx *raftstore.Tx) error {
		if _, found := t.RevisionOf(tx, of.key); !found {
			return of.missing
		}
		if err := t.checkEtag(tx, of.key, of.etag, of.name); err != nil {
			return err
		}
		return t.Delete(tx, of.key)
	}
}

// checkEtag returns an error if the row with a key has another etag than a request. name is for the message.
func (t parsedTable[M, P]) checkEtag(r raftstore.Reader, key, requested, name string) error {
	row, found, err := t.Get(r, key)
	switch {
	case err != nil:
		return err
	case !found:
		return etag.Check(requested, name)
	}
	return etag.Check(requested, name, etag.Of(row.Value.GetGeneration()))
}

// describeAll returns the API message of each element of a list.
func describeAll[P, S any](list []P, describe func(P) (S, error)) ([]S, error) {
	var all []S
	for _, p := range list {
		s, err := describe(p)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		all = append(all, s)
	}
	return all, nil
}
