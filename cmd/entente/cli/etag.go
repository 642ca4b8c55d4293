package cli

import "github.com/spf13/cobra"

// Etag adds --etag to a command that changes or ends something, and returns its value.
func Etag(cmd *cobra.Command) *string {
	return cmd.Flags().String("etag", "", "refuse if its `ETAG` is another one by now; '--output json' shows it")
}

// PutEtag adds --etag to a command that creates or replaces something, and returns its value.
func PutEtag(cmd *cobra.Command) *string {
	return cmd.Flags().String("etag", "",
		"refuse if its `ETAG` is another one by now, or with 0 if it exists; '--output json' shows it")
}
