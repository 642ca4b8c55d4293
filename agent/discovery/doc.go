// Package discovery serves discovery streams of xDS to the programs of a node, SDS among them: state of the world and
// delta.
//
// Each stream has a [Source], which states what the stream is to have of a type. [Whole] and [Delta] compare that with
// what the client has, and send the difference in the order in which resources refer to each other. A stream is sent
// the next update of a type once the client has acknowledged or rejected the one before, so that one that does not read
// costs nothing but its own last update. A version that the client has rejected is not sent again.
package discovery
