package etag_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
)

func TestOf(t *testing.T) {
	require.Equal(t, "17", etag.Of(17))
	require.NotEqual(t, etag.Absent, etag.Of(0), "a row without a generation exists")
}

func TestCheck(t *testing.T) {
	const name = "the rule for web"
	for title, c := range map[string]struct {
		requested string
		present   []string
		code      codes.Code
		want      string
	}{
		"no etag":                   {"", []string{"3"}, codes.OK, ""},
		"no etag, no object":        {"", nil, codes.OK, ""},
		"the etag":                  {"3", []string{"3"}, codes.OK, ""},
		"one of two":                {"3", []string{"2", "3"}, codes.OK, ""},
		"absent":                    {"0", nil, codes.OK, ""},
		"a row of earlier versions": {"1", []string{etag.Of(0)}, codes.OK, ""},
		"changed": {
			"3", []string{"5"}, codes.Aborted, "the rule for web was changed since it was read: the request is for " +
				"generation 3, and it is in generation 5; read it again, and repeat the change with its new etag",
		},
		"deleted": {
			"3", nil, codes.Aborted, "the rule for web was read in generation 3 and has been deleted since: leave " +
				"the etag out to make it again",
		},
		"exists": {
			"0", []string{"5"}, codes.Aborted, "the rule for web exists, in generation 5, and etag 0 requires that " +
				"it does not: read it, and send its etag to replace it",
		},
		"no number": {
			"W/3", []string{"3"}, codes.InvalidArgument, `etag "W/3" is none that this API returned: read the rule ` +
				"for web again and use its etag, or leave it out",
		},
		"another text of the number": {
			"03", []string{"3"}, codes.InvalidArgument, `etag "03" is none that this API returned: read the rule for ` +
				"web again and use its etag, or leave it out",
		},
		"a long text": {
			strings.Repeat("9", 1000), []string{"3"}, codes.InvalidArgument, `etag "` + strings.Repeat("9", 32) +
				`…" is none that this API returned: read the rule for web again and use its etag, or leave it out`,
		},
	} {
		t.Run(title, func(t *testing.T) {
			s := status.Convert(etag.Check(c.requested, name, c.present...))
			require.Equal(t, c.code, s.Code())
			require.Equal(t, c.want, s.Message())
			if c.code != codes.Aborted {
				return
			}
			is := etag.Absent
			if len(c.present) > 0 {
				is = c.present[0]
			}
			info, ok := s.Details()[0].(*errdetails.ErrorInfo)
			require.True(t, ok)
			require.Equal(t, apierror.EtagMismatch, info.GetReason())
			require.Equal(t, map[string]string{
				apierror.RequestedEtag: c.requested, apierror.CurrentEtag: is,
			}, info.GetMetadata())
		})
	}
}
