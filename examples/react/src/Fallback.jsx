import { Component } from "react";

/** `useQuery` throws when its query fails, as where the server has no function of that name. Then this is shown. */
export default class Fallback extends Component {
  state = { error: null };

  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    if (this.state.error === null) return this.props.children;
    return (
      <main>
        <section className="card" role="alert">
          <h2>The page can’t be shown</h2>
          <p>{this.state.error.message}</p>
        </section>
      </main>
    );
  }
}
