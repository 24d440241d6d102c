// The views, by the first word of their address (#/NAME/ID). Those with a `label` stand in the navigation, in this order.

export const VIEWS = {
  "": { label: "Now", file: "now" },
  track: { label: "Track", file: "track" },
  map: { label: "Taste map", file: "map" },
  user: { label: "User", file: "user" },
  try: { label: "Try it", file: "try" },
  "dead-letters": { label: "Dead letters", file: "dead-letters" },
  review: { label: "Review", file: "review" },
};
