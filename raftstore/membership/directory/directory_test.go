package directory

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

type fixed struct {
	index   raftstore.Revision
	servers []raftstore.Server
}

func (f *fixed) List() []raftstore.Server  { return f.servers }
func (f *fixed) Index() raftstore.Revision { return f.index }

func identityOf(id string, key byte) *ententev1.MemberIdentity {
	d := memberid.Digest{key}
	return &ententev1.MemberIdentity{Id: id, Address: id + ":7440", Identity: d[:]}
}

// The newest configuration counts, whatever its source.
func TestDirectory(t *testing.T) {
	d := New("eu-1", nil)
	changes := 0
	d.OnLearned(func() { changes++ })
	_, known := d.MemberByIdentity(memberid.Digest{2})
	require.False(t, known, "the directory is empty at first")
	require.Len(t, d.unknown, 1, "and the membership is to be fetched")

	own := &fixed{index: 10, servers: []raftstore.Server{
		{MemberID: "eu-1", Identity: memberid.Digest{1}, Address: "eu-1:7440"},
		{MemberID: "eu-2", Identity: memberid.Digest{2}, Address: "eu-2:7440"},
	}}
	d.Attach(own)
	id, known := d.MemberByIdentity(memberid.Digest{2})
	require.True(t, known)
	assert.Equal(t, "eu-2", id)

	learned, err := d.Learn(9, []*ententev1.MemberIdentity{identityOf("eu-1", 1), identityOf("eu-3", 3)})
	require.NoError(t, err)
	require.False(t, learned, "an older membership is not learned")
	learned, err = d.Learn(10, []*ententev1.MemberIdentity{identityOf("eu-2", 2), identityOf("eu-1", 1)})
	require.NoError(t, err)
	require.False(t, learned, "the same membership is not learned")

	learned, err = d.Learn(20, []*ententev1.MemberIdentity{identityOf("eu-1", 1), identityOf("eu-3", 3)})
	require.NoError(t, err)
	require.True(t, learned)
	require.Equal(t, 1, changes)
	_, known = d.MemberByIdentity(memberid.Digest{2})
	assert.False(t, known, "a removed member is not in it any more")
	address, identity, known := d.Locate("eu-3")
	assert.True(t, known)
	assert.Equal(t, "eu-3:7440", address)
	assert.Equal(t, memberid.Digest{3}, identity)

	own.index = 20
	own.servers = []raftstore.Server{{MemberID: "eu-4", Identity: memberid.Digest{4}}}
	_, known = d.MemberByIdentity(memberid.Digest{4})
	assert.True(t, known, "its own configuration counts as soon as it is as new")

	for name, members := range map[string][]*ententev1.MemberIdentity{
		"a membership of 0 members":                  nil,
		"member eu-1 occurs twice":                   {identityOf("eu-1", 1), identityOf("eu-1", 2)},
		"the digest of its identity key has 2 bytes": {{Id: "eu-1", Identity: []byte{1, 2}}},
		"is not allowed":                             {{Id: "e@u", Identity: make([]byte, 32)}},
	} {
		_, err := d.Learn(30, members)
		require.ErrorContains(t, err, name)
	}
}
